"""Rewards by the reward model that guides, with which a method chooses among its own draws."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rewardsteer.decoding.asking import count_tokens
from rewardsteer.models.compatibility import members
from rewardsteer.records import Cost, Generation

Rate = Callable[[Sequence[Generation]], Sequence[tuple[float, Cost]]]


def own_rewards(
    scorer: Any, prompts: Mapping[str, Any], batch_size: int, *, texts: bool = False
) -> Rate:
    """A function that returns rewards by the reward model that guides, one call per response; an
    ensemble gives the weighted sum.

    Args:
        scorer: any reward model, or an ensemble.
        prompts: by request, the policy's token ids of the prompt, or with ``texts`` the prompt.
        batch_size: rows scored together.
        texts: score texts, for a reward model with other tokens than the policy's or with none.
    """
    models = members(scorer)
    weights = getattr(scorer, "weights", (1.0,))
    read = _by_texts if texts else _by_ids

    def rate(generations: Sequence[Generation]) -> list[tuple[float, Cost]]:
        began = time.perf_counter()
        asked = [prompts[generation.id] for generation in generations]
        rewards, tokens = np.zeros(len(asked)), np.zeros(len(asked), dtype=int)
        for one, weight in zip(models, weights, strict=True):
            found, lengths = read(one, asked, generations, batch_size)
            rewards += weight * found
            tokens += lengths
        share = (time.perf_counter() - began) / len(asked)
        return [
            (float(reward), Cost(
                rm_calls=len(models), rm_forwards=len(models), rm_tokens=int(count), seconds=share
            ))
            for reward, count in zip(rewards, tokens, strict=True)
        ]

    return rate


def _by_ids(
    scorer: Any, prompts: Sequence[Any], generations: Sequence[Generation], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards ``[N]`` and the number of tokens processed for each."""
    closed = [scorer.close_response(one.token_ids, one.stop_token) for one in generations]
    rewards = scorer.score_ids(prompts, closed, batch_size=batch_size)
    return rewards, np.array([len(p) + len(r) for p, r in zip(prompts, closed, strict=True)])


def _by_texts(
    scorer: Any, prompts: Sequence[Any], generations: Sequence[Generation], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    texts = [one.completion for one in generations]
    rewards = scorer.score(prompts, texts, batch_size=batch_size)
    lengths = [count_tokens(scorer.tokenizer, *pair) for pair in zip(prompts, texts, strict=True)]
    return rewards, np.array(lengths)
