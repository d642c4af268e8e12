"""Weighted sums of objectives: ``bradley_terry + 0.5 · max_constraint``."""

from collections.abc import Callable, Sequence

import torch

from rewardsteer.errors import ConfigError
from rewardsteer.objectives.base import Objective, ObjectiveResult
from rewardsteer.tensors import PairBatch, RewardOutput


def combine(terms: list[tuple[Objective, float]]) -> Objective:
    """The sum of weighted objectives, computed on one forward pass.

    Raises:
        ConfigError: two terms look at different prefixes, which one batch cannot mark.
    """
    assert terms, "at least one objective"
    if len(terms) == 1 and terms[0][1] == 1.0:
        return terms[0][0]
    prefixes = {term.prefixes for term, _ in terms if term.prefixes is not None}
    if len(prefixes) > 1:
        names = ", ".join(term.name for term, _ in terms)
        raise ConfigError(
            f"The objectives {names} look at different prefixes and cannot share a batch; train "
            "them in alternating phases instead."
        )

    def function(output: RewardOutput, batch: PairBatch) -> ObjectiveResult:
        total = torch.zeros((), device=output.sequence_rewards.device)
        metrics: dict[str, torch.Tensor] = {}
        for term, weight in terms:
            result = term(output, batch)
            total = total + weight * result.loss
            metrics |= result.metrics
            metrics[f"loss_{term.name}"] = result.loss.detach()
        return ObjectiveResult(total, metrics)

    return Objective(
        name="+".join(term.name for term, _ in terms),
        function=function,
        rows="pairs" if any(term.rows == "pairs" for term, _ in terms) else "chosen",
        needs=frozenset().union(*(term.needs for term, _ in terms)),
        prefixes=next(iter(prefixes), None),
        rewards=next((term.rewards for term, _ in terms if term.rewards is not None), None),
        looks_at=_all_looks([term.looks_at for term, _ in terms]),
    )


def _all_looks(
    several: Sequence[Callable[[PairBatch], torch.Tensor] | None],
) -> Callable[[PairBatch], torch.Tensor] | None:
    known = [one for one in several if one is not None]
    if len(known) < len(several):
        return None
    return lambda batch: torch.stack([one(batch) for one in known]).any(dim=0)
