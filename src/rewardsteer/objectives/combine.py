"""Weighted sums of objectives: ``bradley_terry + 0.5 · max_constraint``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from rewardsteer.errors import ConfigError
from rewardsteer.objectives import OBJECTIVES
from rewardsteer.objectives.base import Objective, ObjectiveResult
from rewardsteer.objectives.config import TermConfig
from rewardsteer.registry import check_options
from rewardsteer.tensors import PairBatch, RewardOutput


def build_objective(terms: Sequence[TermConfig]) -> Objective:
    """The weighted sum of the named objectives.

    Raises:
        ConfigError: unknown name or option.
    """
    built = []
    for term in terms:
        build = OBJECTIVES.get(term.name)
        check_options(f"The objective {term.name!r}", build, term.options)
        try:
            built.append((build(**term.options), term.weight))
        except TypeError as error:
            raise ConfigError(f"The objective {term.name!r} refuses that: {error}.") from error
    return combine(built)


def combine(terms: list[tuple[Objective, float]]) -> Objective:
    """The sum of weighted objectives, computed on one forward pass.

    Raises:
        ConfigError: two terms use different prefixes, which one batch cannot mark, or one uses
            pairs and another responses with numbers.
    """
    assert terms, "at least one objective"
    if len(terms) == 1 and terms[0][1] == 1.0:
        return terms[0][0]
    rows = _rows([term for term, _ in terms])
    prefixes = {term.prefixes for term, _ in terms if term.prefixes is not None}
    if len(prefixes) > 1:
        several = ", ".join(term.name for term, _ in terms)
        raise ConfigError(
            f"The objectives {several} look at different prefixes and cannot share a batch; train "
            "them in alternating phases instead."
        )

    names = _names([term.name for term, _ in terms])

    def function(output: RewardOutput, batch: PairBatch) -> ObjectiveResult:
        total = torch.zeros((), device=output.sequence_rewards.device)
        results = {}
        for name, (term, weight) in zip(names, terms, strict=True):
            results[name] = term(output, batch)
            total = total + weight * results[name].loss
        losses = {f"loss_{name}": result.loss.detach() for name, result in results.items()}
        metrics = {name: result.metrics for name, result in results.items()}
        return ObjectiveResult(total, _named_apart(metrics), losses)

    return Objective(
        name="+".join(term.name for term, _ in terms),
        function=function,
        rows=rows,
        needs=frozenset().union(*(term.needs for term, _ in terms)),
        temperatures=frozenset().union(*(term.temperatures for term, _ in terms)),
        backups=frozenset().union(*(term.backups for term, _ in terms)),
        prefixes=next(iter(prefixes), None),
        rewards=next((term.rewards for term, _ in terms if term.rewards is not None), None),
        measures=next((term.measures for term, _ in terms if term.measures is not None), None),
        attributes=_attributes([term for term, _ in terms]),
        numbers=tuple(dict.fromkeys(name for term, _ in terms for name in term.numbers)),
        reading=next((term.reading for term, _ in terms if term.reading != "value"), "value"),
        figures={name: one for term, _ in terms for name, one in term.figures.items()},
    )


def _rows(terms: list[Objective]) -> Literal["pairs", "chosen", "responses"]:
    kinds = {term.rows for term in terms}
    if "responses" in kinds and len(kinds) > 1:
        numbers = ", ".join(term.name for term in terms if term.rows == "responses")
        pairs = ", ".join(term.name for term in terms if term.rows != "responses")
        raise ConfigError(
            f"The objective(s) {numbers} train on responses with numbers and {pairs} on preference "
            "pairs, which are different data; train with one or the other."
        )
    return "responses" if "responses" in kinds else "pairs" if "pairs" in kinds else "chosen"


def _attributes(terms: list[Objective]) -> tuple[str, ...]:
    several = {term.attributes for term in terms if term.attributes}
    if len(several) > 1:
        raise ConfigError(
            "The objectives of a sum must name the same attributes in the same order, got "
            f"{' and '.join(', '.join(names) for names in sorted(several))}."
        )
    return next(iter(several), ())


def _names(names: list[str]) -> list[str]:
    """Names of terms; an objective that occurs several times is numbered."""
    return [
        name if names.count(name) == 1 else f"{name}_{names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    ]


def _named_apart(metrics: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Metrics of all terms; a name that several terms have becomes ``TERM/NAME``."""
    count = Counter(name for own in metrics.values() for name in own)
    return {
        name if count[name] == 1 else f"{term}/{name}": value
        for term, own in metrics.items() for name, value in own.items()
    }
