"""Guides inside transformers' own generate()."""

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import generate
from rewardsteer.decoding.processor import GuideProcessor
from rewardsteer.errors import ConfigError
from tests.decoding.naive import naive_greedy
from tests.decoding.test_generate import PROMPTS, folders, make_method, make_policy  # noqa: F401


def library(policy, tokenizer, processor, prompts=PROMPTS, **options):
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    rows = policy.generate(
        **inputs, logits_processor=[processor], pad_token_id=tokenizer.pad_token_id, **options
    )
    return rows[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("name", ["farma", "args"])
def test_equals_our_loop(folders, kind, name):  # noqa: F811
    policy, tokenizer = make_policy(kind, eos_bias=2.0)
    config = DecodingConfig(
        method=name, mode="greedy", top_k=5, weight=1.5, max_new_tokens=12
    )
    method = make_method(config, folders, kind)
    ours = [r.token_ids for r in generate(policy, tokenizer, PROMPTS, method, config)]
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    for _ in range(2):  # one processor serves one call after the other
        theirs = library(policy, tokenizer, processor, max_new_tokens=12, do_sample=False)
        for a, b in zip(ours, theirs, strict=True):
            assert b[: len(a)] == a
            assert set(b[len(a) :]) <= {tokenizer.pad_token_id}


def test_caches_are_incremental(folders):  # noqa: F811
    policy, tokenizer = make_policy()
    config = DecodingConfig(method="farma", weight=0.1)
    method = make_method(config, folders)
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    library(policy, tokenizer, processor, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    reads = processor._session.reads(0)
    assert reads == (6, 6, len(PROMPTS[0]) + 5)


@pytest.mark.parametrize("name", ["farma", "args"])
def test_beams_are_reordered(folders, name):  # noqa: F811
    policy, tokenizer = make_policy()
    config = DecodingConfig(method=name, weight=0.5, top_k=8)
    options = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    method = make_method(config, folders)
    processor = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
    together = library(policy, tokenizer, processor, **options)
    for row in range(3 * len(PROMPTS)):
        calls, forwards, tokens = processor._session.reads(row)
        assert forwards == 6
        # A beam that takes another's place takes over what was read of it.
        assert tokens == len(PROMPTS[row // 3]) + (5 if name == "farma" else calls)
    for prompt, row in zip(PROMPTS, together, strict=True):
        fresh = GuideProcessor(method, pad_token_id=tokenizer.pad_token_id)
        [alone] = library(policy, tokenizer, fresh, [prompt], **options)
        assert row[: len(alone)] == alone


def test_padding_that_also_begins_texts(folders):  # noqa: F811
    policy, _ = make_policy()
    config = DecodingConfig(method="farma", mode="greedy", max_new_tokens=5)
    method = make_method(config, folders)
    ids = torch.tensor([[0, 0, 0, 9], [0, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    processor = GuideProcessor(method, attention_mask=mask)
    rows = policy.generate(
        input_ids=ids, attention_mask=mask, logits_processor=[processor], do_sample=False,
        max_new_tokens=5, pad_token_id=0,
    )[:, 4:].tolist()
    for row, prompt in zip(rows, ([0, 9], [0, 5, 6, 7]), strict=True):
        expected = naive_greedy(policy, method.scorer, prompt, config, {0})
        assert row[: len(expected)] == expected
    with pytest.raises(ConfigError, match="make a processor for each batch"):
        processor(torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 80))


def test_padding_must_be_known(folders):  # noqa: F811
    method = make_method(DecodingConfig(method="farma"), folders)
    with pytest.raises(ConfigError, match="pad_token_id"):
        GuideProcessor(method)
