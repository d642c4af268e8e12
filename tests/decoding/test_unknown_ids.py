"""Tokens that only the policy knows: they may be in prompts and may be drawn, get no reward, and
never reach the reward model."""

import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.models.known_ids import KnownIds
from tests.decoding.test_failing_rows import METHODS, make_goal
from tests.decoding.test_generate import folders, make_policy, make_scorer  # noqa: F401
from tests.fakes import character_tokenizer

SIZE = len(character_tokenizer())
TOOL = SIZE
SHARED = {"max_new_tokens": 12, "seed": 2, "top_k": 5, "batch_size": 4, "n": 3}
REQUESTS = [
    Request(id="in the prompt", prompt="", prompt_ids=[5, TOOL, 7]),
    Request(id="at its end", prompt="", prompt_ids=[5, 9, TOOL]),
    Request(id="text", prompt="What is 7+8?"),
]


def make_parts(folders, name):  # noqa: F811
    """A policy that likes a special token of its own, and what guides it."""
    policy, _ = make_policy(eos_bias=-50.0, vocab_size=SIZE + 1)
    policy.get_output_embeddings().bias.data[TOOL] = 3.0
    tokenizer = character_tokenizer(padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    head, own = METHODS[name]
    scorer = head and make_scorer(folders["llama"], head)
    return policy, tokenizer, scorer, DecodingConfig(method=name, **SHARED | own)


@pytest.mark.parametrize("name", METHODS)
def test_they_never_reach_the_reward_model(folders, name):  # noqa: F811
    policy, tokenizer, scorer, config = make_parts(folders, name)
    seen = []
    if scorer is not None:
        scorer.reward_model.carrier.get_input_embeddings().register_forward_pre_hook(
            lambda _, args: seen.append(int(args[0].max()))
        )
    method = build_method(config, scorer, make_goal())
    results = list(generate(policy, tokenizer, REQUESTS, method, config, template=Template()))
    assert [result.error for result in results] == [None] * 3
    assert any(TOOL in result.token_ids for result in results)
    if scorer is not None:
        assert seen
        assert max(seen) < SIZE


@torch.no_grad()
def test_the_reward_model_reads_its_unknown_token_in_their_place(folders):  # noqa: F811
    """Against the equation, all read anew."""
    policy, tokenizer, scorer, config = make_parts(folders, "farma")
    config = config.model_copy(update={"mode": "greedy", "weight": 0.4})
    method = build_method(config, scorer)
    results = list(generate(policy, tokenizer, REQUESTS, method, config, template=Template()))
    reward_model, unknown = scorer.reward_model.carrier, scorer.tokenizer.unk_token_id
    for request, result in zip(REQUESTS, results, strict=True):
        row = list(request.prompt_ids or tokenizer.encode(request.prompt))
        for token in result.token_ids:
            logits = policy(torch.tensor([row])).logits[0, -1]
            shown = [unknown if one == TOOL else one for one in row]
            rewards = 0.4 * reward_model(torch.tensor([shown])).logits[0, -1]
            # No reward: the least that any token gets.
            scores = logits + torch.cat([rewards, rewards.min()[None]])
            assert token == int(scores.argmax())
            row.append(token)
    assert any(TOOL in result.token_ids for result in results)


def test_what_stands_in():
    tokenizer = character_tokenizer()
    assert KnownIds(tokenizer, 200).size == SIZE
    assert KnownIds(tokenizer, 40).size == 40
    known = KnownIds(tokenizer, 200)
    ids = torch.tensor([[3, SIZE, 4], [SIZE + 9, 5, 6]])
    assert known.of(ids).tolist() == [[3, 1, 4], [1, 5, 6]]
    few = ids[:, 2:]
    assert known.of(few) is few
    assert known.of_rows([[3, SIZE], [], [4]]) == [[3, 1], [], [4]]
    tokenizer.unk_token = None
    assert KnownIds(tokenizer, 200).stand_in == tokenizer.pad_token_id == 2
    tokenizer.pad_token = None
    assert KnownIds(tokenizer, 200).stand_in == tokenizer.eos_token_id == 0
    tokenizer.eos_token = None
    assert KnownIds(tokenizer, 200).stand_in == 0


def test_tokenizers_that_leave_ids_out():
    class Gaps:
        unk_token_id, pad_token_id, eos_token_id = None, None, 7

        def get_vocab(self):
            return {"a": 0, "b": 3, "</s>": 7}

    assert KnownIds(Gaps(), 10).size == 8
    assert KnownIds(Gaps(), 10).of_rows([[3, 7, 8]]) == [[3, 7, 7]]
