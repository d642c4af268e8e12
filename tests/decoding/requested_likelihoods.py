"""Likelihoods that an engine asks for by requests, against those of the same policy here."""

import asyncio

import pytest

from rewardsteer.decoding.engines.transformers.likelihoods import PolicyLikelihoods
from rewardsteer.decoding.sample import Encoded
from rewardsteer.models.prefix_reader import PrefixReader
from tests.fakes import character_tokenizer

PROMPT = Encoded("p", character_tokenizer().encode("Sum of 3"))
BEFORE = ([], [8, 9])
CONTINUATIONS = [[5, 6, 7], [5], [9, 8]]


async def of_all(likelihoods):
    """After each of `BEFORE`."""
    return [await likelihoods.of(before, CONTINUATIONS) for before in BEFORE]


def check_found(found, cost, policy, tolerance):
    """Each of `of_all` is that of the policy, and was read as a whole."""
    plain = PolicyLikelihoods(PrefixReader(policy), PROMPT.token_ids)
    for before, values in zip(BEFORE, found, strict=True):
        assert values == pytest.approx(
            asyncio.run(plain.of(before, CONTINUATIONS)), abs=tolerance
        )
    assert cost.lm_forwards == 6
    assert cost.lm_tokens == 6 * len(PROMPT.token_ids) + 3 * 2 + 2 * 6
