"""Figures of pairs of responses with their rewards."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rewardsteer.evaluation.calibration import pair_calibration
from rewardsteer.evaluation.data_notes import pair_notes
from rewardsteer.evaluation.distributions import by_length, histogram
from rewardsteer.evaluation.preference_controls import preference_controls
from rewardsteer.evaluation.statistics import over, share, wins
from rewardsteer.objectives.agreement import spearman


class ScoredPairs(NamedTuple):
    """Pairs with their rewards; the columns are chosen and rejected.

    Attributes:
        rewards: ``[N, 2]``.
        lengths: ``[N, 2]``, of the responses in tokens (characters where there are none).
        subsets: their names.
        prompts: ``[N]`` the same number for pairs of the same prompt.
        writers: of both responses; empty where the data names none.
    """

    rewards: np.ndarray
    lengths: np.ndarray
    subsets: list[str]
    prompts: np.ndarray
    writers: Sequence[tuple[str, str]] = ()

    def rows(self, chosen: Any) -> "ScoredPairs":
        """Some of the pairs, by indices or a mask; without the names of their subsets."""
        return ScoredPairs(self.rewards[chosen], self.lengths[chosen], [], self.prompts[chosen])


def summarise(
    pairs: ScoredPairs, texts: Sequence[tuple[str, str, str]], *, too_long: int
) -> dict[str, Any]:
    """All figures, see `rewardsteer.evaluation.preference.evaluate_comparisons`.

    Args:
        pairs: at least one.
        texts: prompt, chosen and rejected response of each.
        too_long: pairs that could not be scored.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, subset in enumerate(pairs.subsets):
        groups[subset or "none"].append(index)
    return {
        "all": _figures(pairs),
        "subsets": {name: _figures(pairs.rows(rows)) for name, rows in sorted(groups.items())},
        "too_long": too_long,
        "notes": pair_notes(texts, pairs.rewards),
        "calibration": pair_calibration(pairs.rewards[:, 0] - pairs.rewards[:, 1]),
        "length_bias": _length_bias(pairs),
        "controls": preference_controls(
            pairs.rewards, pairs.lengths, pairs.writers, pairs.prompts
        ),
        "histogram": histogram({"chosen": pairs.rewards[:, 0], "rejected": pairs.rewards[:, 1]}),
        "reward_by_length": {
            side: by_length(pairs.lengths[:, column], pairs.rewards[:, column])
            for column, side in enumerate(("chosen", "rejected"))
        },
    }


def _figures(pairs: ScoredPairs) -> dict[str, Any]:
    margins = pairs.rewards[:, 0] - pairs.rewards[:, 1]
    return {
        **_accuracy(pairs), "margin": float(margins.mean()),
        "margin_median": float(np.median(margins)),
    }


def _accuracy(pairs: ScoredPairs) -> dict[str, Any]:
    if not len(pairs.rewards):
        return {"count": 0}
    right = wins(pairs.rewards[:, 0], pairs.rewards[:, 1])
    accuracy = share(right.tolist(), pairs.prompts.tolist())
    return {
        "count": len(right), "prompts": (prompts := len(np.unique(pairs.prompts))),
        **accuracy.figures("accuracy"), "intervals": over(prompts, "prompt"),
    }


def _length_bias(pairs: ScoredPairs) -> dict[str, Any]:
    margins = pairs.rewards[:, 0] - pairs.rewards[:, 1]
    longer_by = pairs.lengths[:, 0] - pairs.lengths[:, 1]
    figures: dict[str, Any] = {
        "longer": _accuracy(pairs.rows(longer_by > 0)),
        "shorter": _accuracy(pairs.rows(longer_by < 0)),
        "equal": _accuracy(pairs.rows(longer_by == 0)),
    }
    # Undefined where all values of one side are equal.
    correlation = spearman(margins, longer_by)
    return figures if np.isnan(correlation) else figures | {"spearman": correlation}
