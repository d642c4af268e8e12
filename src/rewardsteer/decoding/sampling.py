"""Picking the next token of every row from its scores, and the tokens' log-probabilities.

The order is vLLM's: guided scores, `rewardsteer.decoding.penalties`, temperature, min_p, top_k,
top_p, draw.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import MinPLogitsWarper, TopPLogitsWarper

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.kernels.precision import exact


def row_generator(seed: int, request_id: str, sample: int) -> random.Random:
    """A row's own stream of random numbers.

    It depends on nothing but these three, so a row draws the same whatever shares its batch, and
    two methods given one seed can be compared draw for draw.
    """
    return random.Random(f"{seed}/{sample}/{request_id}")


def pick(scores: Tensor, rngs: Sequence[random.Random], config: DecodingConfig) -> list[int]:
    """Next tokens ``[B]``; scores ``[B, V]`` are unnormalised log-probabilities.

    Sampling divides by the temperature, keeps the tokens that ``min_p``, ``top_k`` and ``top_p``
    allow, in this order, and inverts the distribution function at one uniform number per row.
    """
    if config.mode == "greedy":
        # The same as argmax, in a third of its time.
        return [int(token) for token in scores.max(dim=-1).indices.tolist()]
    scores = scores.float() / config.temperature
    no_ids = torch.empty(0, dtype=torch.long)  # These warpers look at scores alone.
    if config.min_p > 0:
        scores = MinPLogitsWarper(config.min_p)(no_ids, scores)
    tokens = None
    if 0 < config.top_k < scores.shape[-1]:
        scores, tokens = scores.topk(config.top_k, dim=-1)
    if config.top_p < 1:
        scores = TopPLogitsWarper(config.top_p)(no_ids, scores)
    cumulative = exact(scores.softmax(dim=-1)).cumsum(dim=-1)
    uniform = torch.tensor([rng.random() for rng in rngs], dtype=torch.float64)
    # Scaled by the sum, which rounding leaves a little off 1, so that no draw falls behind the end.
    targets = uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
    places = torch.searchsorted(cumulative, targets, right=True)
    places = places.clamp(max=scores.shape[-1] - 1)
    chosen = places if tokens is None else tokens.gather(1, places.to(tokens.device))
    return [int(token) for token in chosen.squeeze(1).tolist()]


def pick_each(
    scores: Tensor, rngs: Sequence[random.Random], configs: Sequence[DecodingConfig]
) -> list[int]:
    """`pick` with settings for each row; rows of equal settings are picked together."""
    alike: dict[tuple[str | float, ...], list[int]] = {}
    for row, config in enumerate(configs):
        greedy = config.mode == "greedy"
        rest = () if greedy else (config.temperature, config.min_p, config.top_k, config.top_p)
        alike.setdefault((config.mode, *rest), []).append(row)
    if len(alike) == 1:
        return pick(scores, rngs, configs[0])
    tokens = [0] * len(configs)
    for rows in alike.values():
        picked = pick(scores[rows], [rngs[row] for row in rows], configs[rows[0]])
        for row, token in zip(rows, picked, strict=True):
            tokens[row] = token
    return tokens


class TokenLogprob(NamedTuple):
    """A generated token under the policy alone, at temperature 1 over the whole vocabulary.

    Attributes:
        best: ids and log-probabilities of the likeliest tokens, best first.
    """

    value: float
    best: list[tuple[int, float]]


def ranked(found: Mapping[int, float], top: int) -> list[tuple[int, float]]:
    """Ids and log-probabilities of the ``top`` likeliest tokens, best first."""
    return sorted(found.items(), key=lambda one: -one[1])[:top]


def log_probabilities(
    logits: Tensor, tokens: Sequence[int], top: int = 0
) -> list[TokenLogprob]:
    """Log-probabilities of one token per row.

    Args:
        logits: of the policy, ``[R, V]``.
        tokens: ``[R]``.
        top: how many of the likeliest tokens to name as well.
    """
    values = logits.float().log_softmax(dim=-1)
    taken = torch.tensor(list(tokens), device=values.device)[:, None]
    found = values.topk(min(top, values.shape[-1]), dim=-1)
    return [
        TokenLogprob(value, list(zip(ids, best, strict=True)))
        for value, ids, best in zip(
            values.gather(1, taken).squeeze(1).tolist(), found.indices.tolist(),
            found.values.tolist(), strict=True,
        )
    ]
