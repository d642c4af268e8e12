"""Equal budgets: how many responses a method can afford, and the best of them.

    m = max(1, ⌊budget / mean cost of a response⌋)

Every method answers all prompts once. The mean cost of that round, scoring included, determines how
many independent responses m it can afford per prompt. m is the same for all prompts, so that it
does not depend on the responses to one of them. The result is the response with the highest reward
by the method's own reward model, at the cost of all m. Methods without a reward model and greedy
methods answer once.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple, TypeVar, get_args

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.methods import is_best_of_n
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import ConfigError
from rewardsteer.evaluation.own_rewards import Rate
from rewardsteer.evaluation.record_files import load_records
from rewardsteer.models.compatibility import members
from rewardsteer.outputs import append_jsonl
from rewardsteer.records import Cost, Generation, Record

T = TypeVar("T")
Unit = Literal["tokens", "seconds", "calls"]
Sample = Callable[[DecodingConfig, Sequence[Request]], Iterator[Generation]]


@dataclass(frozen=True)
class Budget:
    """What a method may spend on a prompt, on average over the prompts.

    Attributes:
        unit: ``tokens`` (see `equivalent_tokens`), ``seconds`` or ``calls`` of reward models.
        per_prompt: number of units per prompt.

    Raises:
        ConfigError: unknown unit, or a budget that is not positive.
    """

    unit: Unit
    per_prompt: float

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise ConfigError(
                f"Expected a budget of {', '.join(get_args(Unit))}, got {self.unit!r}."
            )
        if not 0 < self.per_prompt < math.inf:
            raise ConfigError(f"A budget per prompt must be above 0, got {self.per_prompt:g}.")

    def spent(self, cost: Cost, sizes: "Sizes") -> float:
        """A cost in this unit."""
        if self.unit == "tokens":
            return equivalent_tokens(cost, sizes)
        return cost.seconds if self.unit == "seconds" else float(cost.rm_calls)


class Sizes(NamedTuple):
    """Parameters of a method's models divided by the policy's; 0 where a model is absent.

    Attributes:
        scorer: size of the reward model; the mean of several, since all process the same tokens.
        drafter: size of a second policy.
        scout: size of a gate's own reward model.
    """

    scorer: float = 0.0
    drafter: float = 0.0
    scout: float = 0.0


def equivalent_tokens(cost: Cost, sizes: Sizes) -> float:
    """Policy-equivalent tokens: the tokens that the policy processed, plus those of each further
    model times its relative size."""
    return (
        cost.lm_tokens - cost.draft_tokens + sizes.drafter * cost.draft_tokens
        + sizes.scorer * (cost.rm_tokens - cost.gate_tokens) + sizes.scout * cost.gate_tokens
    )


def relative_sizes(
    policy: float, scorer: Any = None, *, drafter: float = 0.0, scout: Any = None
) -> Sizes:
    """Sizes of a method's models.

    Args:
        policy, drafter: numbers of weights; NaN: not known, and then the sizes are not.
        scorer: a reward model, an ensemble, or None.
        scout: a gate's own reward model, or None.
    """
    return Sizes(
        0.0 if scorer is None else fmean(one.parameter_count() for one in members(scorer)) / policy,
        drafter and drafter / policy,
        0.0 if scout is None else scout.parameter_count() / policy,
    )


class Draw(Record):
    """One of several responses to a prompt.

    Attributes:
        number: its number, from 0.
        generation: the response, with the cost of generating it.
        reward: by the method's own reward model; None when it has none.
        choosing: cost of the reward beyond that of the generation.
    """

    number: int
    generation: Generation
    reward: float | None = None
    choosing: Cost = Cost()


def best_within(
    budget: Budget | None, sizes: Sizes, config: DecodingConfig, requests: Sequence[Request],
    place: Path, *, sample: Sample, rate: Rate | None,
) -> tuple[list[Generation], int]:
    """The best responses that the budget allows, and the number m that each was chosen from.

    Args:
        budget: per prompt; None: one answer each.
        sizes: of the method's models.
        config: the method's settings; draw r has ``seed`` + r. For best of n a draw is one
            response.
        requests: the prompts.
        place: file of draws, one `Draw` per line; resumable. m is computed from the first round in
            it, so it is the same after a resume.
        sample: generates responses in the order of the requests.
        rate: returns rewards by the method's own reward model with their costs; None without one.

    Raises:
        DataError: ``place`` holds lines that are no draws.
    """
    drawn = load_records(place, Draw, "draw")
    done = {(draw.number, draw.generation.id): draw for draw in drawn}
    if budget is None or config.mode == "greedy":
        rate = None
    if budget is not None and is_best_of_n(config.method):
        config = config.model_copy(update={"n": 1})

    def draw_all(number: int) -> list[Draw]:
        missing = [request for request in requests if (number, request.id) not in done]
        seeded = config.model_copy(update={"seed": config.seed + number})
        generations = sample(seeded, missing) if missing else iter(())
        for batch in in_batches(generations, config.batch_size):
            draws = _rated(number, batch, rate)
            append_jsonl(place, [draw.model_dump_json() for draw in draws])
            done.update({(number, draw.generation.id): draw for draw in draws})
        return [done[number, request.id] for request in requests]

    first = draw_all(0)
    if budget is None or rate is None:
        return [draw.generation for draw in first], 1
    mean = fmean(budget.spent(draw.generation.cost + draw.choosing, sizes) for draw in first)
    # 1e-9, so that a budget of exactly m responses is not rounded down to m - 1.
    affordable = max(1, math.floor(budget.per_prompt / mean + 1e-9))
    if affordable == 1:
        return [draw.generation for draw in first], 1
    rounds = [first, *(draw_all(number) for number in range(1, affordable))]
    return [_best(draws) for draws in zip(*rounds, strict=True)], affordable


def _rated(number: int, batch: Sequence[Generation], rate: Rate | None) -> list[Draw]:
    if rate is None or batch[0].reward is not None:
        # A method that chooses among responses has scored them already; its cost includes that.
        return [
            Draw(number=number, generation=generation, reward=generation.reward)
            for generation in batch
        ]
    return [
        Draw(number=number, generation=generation, reward=reward, choosing=cost)
        for generation, (reward, cost) in zip(batch, rate(batch), strict=True)
    ]


def _best(draws: Sequence[Draw]) -> Generation:
    """The response with the highest reward (the first of equals), with the cost of all draws."""
    best = max(draws, key=lambda draw: -math.inf if draw.reward is None else draw.reward)
    total = sum((draw.generation.cost + draw.choosing for draw in draws), Cost())
    kept = best.generation
    cost = total.model_copy(update={"new_tokens": kept.cost.new_tokens})
    return kept.model_copy(update={"reward": best.reward, "cost": cost})


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
