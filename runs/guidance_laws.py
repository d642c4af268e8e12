"""KL divergence of guided responses from the policy, computed in a few batched passes.

`rewardsteer.evaluation.divergence.response_kl` computes the same token by token.

Shapes: T tokens of a response, K candidates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guides.gates import OF_GUIDE, Gate, divergences, measures
from rewardsteer.decoding.guides.weights import Pull
from rewardsteer.distillation.teacher import Asked, TokenTeacher
from rewardsteer.records import Generation


class Way(NamedTuple):
    """Policy logits and candidate rewards before every token of a response.

    Attributes:
        name: seeds the draws of a random gate.
        logits: the policy's logits ``[T, V]``.
        best: the K highest of them ``[T, K]``.
        tokens: ids of these K candidates ``[T, K]``.
        rewards: the guide's rewards of the candidates ``[T, K]``.
        scout: rewards by the gate's own reward model ``[T, K]``; None where it has none.
    """

    name: str
    logits: torch.Tensor
    best: torch.Tensor
    tokens: torch.Tensor
    rewards: torch.Tensor
    scout: torch.Tensor | None


class Distance(NamedTuple):
    """KL of one response (nats), and the number of its tokens at which the guide acted."""

    kl: float
    guided: int


@torch.no_grad()
def read_ways(
    policy: Any, scorer: Any, prompts: Mapping[str, Sequence[int]], rows: Sequence[Generation],
    candidates: int, scout: Any = None,
) -> list[Way]:
    """Run policy and reward models on responses. Without a reward model, rewards are the policy's
    log-probabilities, so that weight w is a temperature of 1 / (1 + w)."""
    whole = [[*prompts[row.id], *row.token_ids] for row in rows]
    ids = torch.zeros(len(rows), max(map(len, whole)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, one in enumerate(whole):
        ids[place, : len(one)] = torch.tensor(one)
        mask[place, : len(one)] = 1
    logits = policy(input_ids=ids, attention_mask=mask).logits.float()
    found, asked = [], []
    for place, row in enumerate(rows):
        begin = len(prompts[row.id]) - 1
        own = logits[place, begin : begin + len(row.token_ids)]
        best, tokens = own.topk(candidates, dim=-1)
        found.append((own, best, tokens))
        asked.append(Asked(
            "", prompts[row.id], row.token_ids, range(len(row.token_ids)), tokens.numpy()
        ))
    rewards = [
        None if one is None else TokenTeacher(one, ()).rewards(asked) for one in (scorer, scout)
    ]
    return [  # ID/0 is the engine's name of the first response to a request.
        Way(
            f"{row.id}/0", own, best, tokens,
            own.log_softmax(-1).gather(1, tokens) if rewards[0] is None
            else torch.from_numpy(rewards[0][place]).float(),
            None if rewards[1] is None else torch.from_numpy(rewards[1][place]).float(),
        )
        for place, (row, (own, best, tokens)) in enumerate(zip(rows, found, strict=True))
    ]


def distances(
    ways: Sequence[Way], config: DecodingConfig, pull: Pull = torch.mul
) -> list[Distance]:
    """Distance of each response at temperature 1 under these settings, gates included; ``pull`` is
    the guide's way to turn rewards and weight into changes of logits."""
    result = []
    for way in ways:
        weight = way.rewards.new_tensor(config.weight)
        pulls = divergences(way.best, way.best + pull(way.rewards, weight))
        gate, values = Gate(config, way.name), gate_measures(way, config)
        is_open = torch.tensor([gate.decide(step, value) for step, value in enumerate(values)])
        result.append(Distance(float(pulls[is_open].sum()), int(is_open.sum())))
    return result


def gate_measures(way: Way, config: DecodingConfig) -> list[float]:
    """The gate's measure at each token; a scout's rewards count with the guide's weight."""
    if config.gate == OF_GUIDE:
        rewards = way.rewards if way.scout is None else way.scout
        found: list[float] = divergences(way.best, way.best + config.weight * rewards).tolist()
        return found
    gates = [Gate(config, way.name)] * len(way.logits)
    return measures(gates, way.logits)


def threshold_for(ways: Sequence[Way], config: DecodingConfig, share: float) -> float:
    """The threshold with which a gate opens at this share of the responses' tokens."""
    values = [value for way in ways for value in gate_measures(way, config)]
    return float(np.quantile(values, 1 - share))
