"""Log-probabilities of finished texts against reading them token by token; prompts as read."""

import math

import numpy as np
import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.prompts import prompts_as_read
from rewardsteer.decoding.requests import Request
from rewardsteer.evaluation.overoptimization import best_of_n_bound
from rewardsteer.models.capabilities import supports_prefix_cache
from rewardsteer.models.causal import log_probabilities
from rewardsteer.records import Message
from tests.fakes import character_tokenizer, tiny_causal_lm


def token_by_token(model, prompt, response):
    total, prefix = 0.0, list(prompt)
    for token in response:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prefix])).logits[0, -1]
        total += float(logits.double().log_softmax(0)[token])
        prefix.append(token)
    return total


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_equals_reading_token_by_token(kind, batch_size):
    model = tiny_causal_lm(kind)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 80, size).tolist() for size in (1, 9, 4, 6)]
    responses = [rng.integers(3, 80, size).tolist() for size in (7, 1, 5, 3)]
    rows = list(zip(prompts, responses, strict=True))
    found = list(log_probabilities(model, rows, batch_size, None))
    assert {one.dtype for one in found} == {np.dtype(np.float64)}
    assert [len(one) for one in found] == [len(response) for response in responses]
    found = [one.sum() for one in found]
    expected = [token_by_token(model, *row) for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-5)


class TakesNothingMore(torch.nn.Module):
    """A model without ``logits_to_keep``."""

    def __init__(self, model):
        super().__init__()
        self.model, self.device = model, model.device

    def forward(self, input_ids, attention_mask, use_cache):
        return self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
        )


def test_a_model_that_gives_all_logits():
    model = tiny_causal_lm()
    rows = [([5, 6, 7], [9, 10]), ([8, 9], [11, 12, 13])]
    plain = log_probabilities(TakesNothingMore(model), rows, 2, None)
    for one, other in zip(plain, log_probabilities(model, rows, 2, None), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_prompts_are_those_that_generation_reads():
    tokenizer, template = character_tokenizer(), Template(prompt="Q: {prompt} A:")
    policy = tiny_causal_lm(vocab_size=len(tokenizer))
    supports_prefix_cache(policy)  # tried beforehand: its forward passes are none of a prompt
    requests = [
        Request(id="text", prompt="1+1"), Request(id="ids", prompt="", prompt_ids=[5, 6, 7]),
        Request(id="talk", prompt=[Message(role="user", content="Hi")]),
    ]
    for written in (template, Template()):
        asked = requests if written is template else [*requests, Request(id="empty", prompt="")]
        seen = []

        def watch(module, args, kwargs, seen=seen):
            seen.append(kwargs["input_ids"])

        hook = policy.register_forward_pre_hook(watch, with_kwargs=True)
        config = DecodingConfig(max_new_tokens=1, batch_size=1)
        list(generate(
            policy, tokenizer, asked, build_method(config), config, template=written
        ))
        hook.remove()
        read = prompts_as_read(asked, tokenizer, None, written)
        assert sorted(read.values()) == sorted(ids[0].tolist() for ids in seen)
        assert read["ids"] == [5, 6, 7]


def test_the_bound_of_best_of_n():
    assert best_of_n_bound(1) == 0
    assert best_of_n_bound(4) == pytest.approx(math.log(4) - 0.75)
    # Enumerated: four equally likely responses of different rewards, the best of n draws.
    for n in (2, 3, 8):
        chances = [(k / 4) ** n - ((k - 1) / 4) ** n for k in range(1, 5)]
        divergence = sum(p * math.log(4 * p) for p in chances)
        assert divergence <= best_of_n_bound(n)
