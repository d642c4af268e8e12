"""Changes to a row's scores that do not depend on the temperature: bans, biases and penalties.

They follow the guide and precede `rewardsteer.decoding.sampling.pick`: the biases of single tokens,
the penalties, then the ban on ending too early. They count in greedy mode too. The ban also
precedes the guide, which may ask about few tokens.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import ConfigError
from rewardsteer.models.batching import right_pad

# Below any score, yet finite: where nothing else is left, the banned token is drawn after all.
_BANNED = -1e30


class Written(Protocol):
    """The part of a `rewardsteer.decoding.sample.Sample` that penalties depend on."""

    prompt_ids: Sequence[int]
    token_ids: list[int]
    drawable: int | None


def check_token_ids(config: DecodingConfig, vocabulary: int) -> None:
    """Raise `ConfigError` where the settings name a token that the policy cannot generate."""
    named = {"logit_bias": [token for token, _ in config.logit_bias],
             "stop_token_ids": config.stop_token_ids}
    for name, tokens in named.items():
        wrong = next((token for token in tokens if not 0 <= token < vocabulary), None)
        if wrong is not None:
            raise ConfigError(
                f"{name} has the token id {wrong}, but the policy's are 0 to {vocabulary - 1}; "
                "use ids of the policy's tokenizer."
            )


def ending_ids(config: DecodingConfig, stop_ids: Collection[int]) -> set[int]:
    """Tokens that end a row with these settings, given those that end the policy's responses."""
    return set(config.stop_token_ids) | (set() if config.ignore_eos else set(stop_ids))


def penalized(
    scores: Tensor, rows: Sequence[Written], configs: Sequence[DecodingConfig],
    stop_ids: Collection[int],
) -> Tensor:
    """Scores ``[B, V]`` with each row's bans, biases and penalties.

    Rows whose settings ask for none keep their numbers. Where no row asks, ``scores`` itself is
    returned.

    Args:
        rows: prompts and what was generated so far.
        configs: the settings of each row.
        stop_ids: tokens that end the policy's responses.
    """
    biased = [
        (number, token, value) for number, config in enumerate(configs)
        for token, value in config.logit_bias
    ]
    repeated = _groups([config.repetition_penalty for config in configs], 1.0)
    counted = [
        row for row, config in enumerate(configs) if rows[row].token_ids
        and (config.presence_penalty or config.frequency_penalty)
    ]
    if not (biased or repeated or counted):
        return allowed(scores, rows, configs, stop_ids)
    scores = scores.float().clone()
    if biased:
        at_rows, at_tokens, values = zip(*biased, strict=True)
        places = (scores.new_tensor(at_rows).long(), scores.new_tensor(at_tokens).long())
        scores.index_put_(places, scores.new_tensor(values), accumulate=True)
    for penalty, some in repeated.items():
        processor = RepetitionPenaltyLogitsProcessor(penalty)
        seen, _ = _padded([[*rows[row].prompt_ids, *rows[row].token_ids] for row in some], scores)
        scores[some] = processor(seen, scores[some])
    if counted:
        ids, mask = _padded([rows[row].token_ids for row in counted], scores)
        counts = torch.zeros_like(scores[counted]).scatter_add_(1, ids, mask)
        frequency, presence = (
            scores.new_tensor([getattr(configs[row], name) for row in counted])[:, None]
            for name in ("frequency_penalty", "presence_penalty")
        )
        scores[counted] -= frequency * counts + presence * (counts > 0)
    return allowed(scores, rows, configs, stop_ids)


def allowed(
    scores: Tensor, rows: Sequence[Written], configs: Sequence[DecodingConfig],
    stop_ids: Collection[int],
) -> Tensor:
    """Scores ``[B, V]`` without the tokens that a row may not draw: those that would end it before
    ``min_tokens``, and those that another policy cannot read. Where there are none, ``scores``
    itself is returned. Arguments as in `penalized`."""
    size = scores.shape[1]
    banned = [
        (number, token) for number, (row, config) in enumerate(zip(rows, configs, strict=True))
        if len(row.token_ids) < config.min_tokens
        for token in ending_ids(config, stop_ids) if token < size
    ]
    limited = {
        number: row.drawable for number, row in enumerate(rows)
        if row.drawable is not None and row.drawable < size
    }
    if not banned and not limited:
        return scores
    scores = scores.float().clone()
    if banned:
        scores[tuple(zip(*banned, strict=True))] = _BANNED
    for number, limit in limited.items():
        scores[number, limit:] = _BANNED
    return scores


def _groups(values: Sequence[float], neutral: float) -> dict[float, list[int]]:
    """Row numbers by value; rows with the neutral value are left out."""
    groups: dict[float, list[int]] = {}
    for row, value in enumerate(values):
        if value != neutral:
            groups.setdefault(value, []).append(row)
    return groups


def _padded(rows: Sequence[Sequence[int]], scores: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids ``[R, T]`` on the scores' device and their mask (float). Rows are not empty; each
    is padded with its own first token, which adds no new token to it."""
    ids, mask = right_pad(rows)
    ids = ids.where(mask > 0, ids[:, :1])
    return ids.to(scores.device), mask.float().to(scores.device)
