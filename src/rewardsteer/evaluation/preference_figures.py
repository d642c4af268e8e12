"""Figures of pairs of responses with their rewards, and controls that ignore the texts: the
responses' writers and lengths."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rewardsteer.data.balancing import SourcedPair, pairs_told_apart
from rewardsteer.evaluation.calibration import pair_calibration
from rewardsteer.evaluation.data_notes import control_note, pair_notes
from rewardsteer.evaluation.distributions import by_length, histogram
from rewardsteer.evaluation.statistics import Interval, over, share, wins
from rewardsteer.objectives.agreement import spearman

Writers = Sequence[tuple[str, str]]


def preference_controls(
    rewards: np.ndarray, lengths: np.ndarray, writers: Writers, prompts: np.ndarray
) -> dict[str, Any]:
    """Accuracies of controls on the same pairs, with intervals over prompts.

    Args:
        rewards: ``[N, 2]``, of the chosen and the rejected responses.
        lengths: ``[N, 2]``, of the same.
        writers: who wrote the two responses, "" where unknown; empty where none is known.
        prompts: ``[N]`` the same number for pairs of one prompt.

    Returns:
        ``length`` (prefer the longer response) and, on pairs that name both writers, ``source``
        (prefer the writer that is preferred more often on other prompts), each with ``accuracy``,
        ``low``, ``high`` and ``count``. The same figures of the reward: ``within_source`` on pairs
        of one writer, ``by_prompt`` with each prompt counted once. ``notes``: sentences on
        controls that the reward does not beat.
    """
    won = wins(rewards[:, 0], rewards[:, 1])
    longer = wins(lengths[:, 0], lengths[:, 1])
    found: dict[str, Any] = {"length": _control(longer, prompts)}
    counts = np.unique(prompts, return_inverse=True)[1]
    found["by_prompt"] = _control(
        np.bincount(counts, weights=won) / np.bincount(counts), np.unique(prompts)
    )
    notes = [_note("length", longer, won, prompts)]
    named = np.array([bool(first and second) for first, second in writers], dtype=bool)
    if len({writer for pair in writers for writer in pair if writer}) > 1 and named.any():
        same = np.array([first == second for first, second in writers]) & named
        pairs = [
            SourcedPair(str(prompt), "", "", *pair)
            for prompt, pair, known in zip(prompts, writers, named, strict=True) if known
        ]
        source = np.array(pairs_told_apart(pairs))
        found["source"] = _control(source, prompts[named])
        within = None
        if same.any():
            found["within_source"] = _control(won[same], prompts[same])
            within = share(won[same], prompts[same])
        notes.append(_note("source", source, won[named], prompts[named], within))
    found["notes"] = [one for one in notes if one is not None]
    return found


def _control(values: np.ndarray, prompts: np.ndarray) -> dict[str, float]:
    found = share(values.tolist(), prompts.tolist())
    return {"accuracy": found.value, **found.ends(), "count": float(len(values))}


def _note(
    name: str, control: np.ndarray, won: np.ndarray, prompts: np.ndarray,
    within: Interval | None = None,
) -> str | None:
    # `share` takes values in [0, 1], so differences in [-1, 1] are mapped there and back.
    gain = Interval(*(2 * end - 1 for end in share((won - control + 1) / 2, prompts)))
    return control_note(
        name, "accuracy", share(control, prompts), float(won.mean()), gain, within
    )


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
