"""Picking the next token of every row from its scores."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import ConfigError
from rewardsteer.kernels.precision import exact


def require_draws(method: str, config: DecodingConfig) -> None:
    """Raise `ConfigError` where a method would draw the same response again and again."""
    if config.n > 1 and config.mode == "greedy":
        raise ConfigError(
            f"The method {method!r} draws n = {config.n} responses, but greedy decoding gives the "
            "same one each time; use mode 'sample' or n = 1."
        )


def row_generator(seed: int, request_id: str, sample: int) -> random.Random:
    """A row's own stream of random numbers.

    It depends on nothing but these three, so a row draws the same whatever shares its batch, and
    two methods given one seed can be compared draw for draw.
    """
    return random.Random(f"{seed}/{sample}/{request_id}")


def pick(scores: Tensor, draws: Sequence[random.Random], config: DecodingConfig) -> list[int]:
    """Next tokens ``[B]``; scores ``[B, V]`` are unnormalised log-probabilities.

    Sampling divides by the temperature, keeps the ``top_k`` best and inverts the distribution
    function at one uniform number per row.
    """
    if config.mode == "greedy":
        # The same as argmax, in a third of its time.
        return [int(token) for token in scores.max(dim=-1).indices.tolist()]
    scores = scores.float() / config.temperature
    tokens = None
    if 0 < config.top_k < scores.shape[-1]:
        scores, tokens = scores.topk(config.top_k, dim=-1)
    cumulative = exact(scores.softmax(dim=-1)).cumsum(dim=-1)
    uniform = torch.tensor([draw.random() for draw in draws], dtype=torch.float64)
    # Scaled by the sum, which rounding leaves a little off 1, so that no draw falls behind the end.
    targets = uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
    places = torch.searchsorted(cumulative, targets, right=True)
    places = places.clamp(max=scores.shape[-1] - 1)
    chosen = places if tokens is None else tokens.gather(1, places.to(tokens.device))
    return [int(token) for token in chosen.squeeze(1).tolist()]


def pick_each(
    scores: Tensor, draws: Sequence[random.Random], configs: Sequence[DecodingConfig]
) -> list[int]:
    """`pick` with settings for each row; rows of equal settings are picked together."""
    alike: dict[tuple[str, float, int], list[int]] = {}
    for row, config in enumerate(configs):
        alike.setdefault((config.mode, config.temperature, config.top_k), []).append(row)
    if len(alike) == 1:
        return pick(scores, draws, configs[0])
    tokens = [0] * len(configs)
    for rows in alike.values():
        picked = pick(scores[rows], [draws[row] for row in rows], configs[rows[0]])
        for row, token in zip(rows, picked, strict=True):
            tokens[row] = token
    return tokens
