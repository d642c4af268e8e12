"""Notes on unusual data of an evaluation, as sentences; figures are computed nevertheless."""

import math
from collections.abc import Hashable, Sequence

import numpy as np

from rewardsteer.evaluation.reward_benchmarks.base import Item
from rewardsteer.evaluation.statistics import Interval
from rewardsteer.records import EvalRecord


def equal_scores(scores: Sequence[float] | np.ndarray, noun: str = "rewards") -> list[str]:
    """A note where all scores are equal."""
    if not len(scores) or np.ptp(scores) > 0:
        return []
    return [f"all {len(scores)} {noun} are {scores[0]:g}: they rank nothing"]


def pair_notes(
    pairs: Sequence[tuple[Hashable, str, str]], rewards: np.ndarray
) -> list[str]:
    """Notes on pairs (prompt, chosen and rejected response) with their rewards ``[N, 2]``."""
    notes = equal_scores(rewards.ravel())
    count = len(pairs)
    if not notes and (ties := int((rewards[:, 0] == rewards[:, 1]).sum())):
        notes.append(f"{ties} of {count} pairs have equal rewards: each counts one half")
    if same := sum(chosen == rejected for _, chosen, rejected in pairs):
        notes.append(f"{same} of {count} pairs hold the same response twice")
    notes += _repeated(pairs, "pairs")
    return notes + _empty([text for _, *both in pairs for text in both])


def item_notes(items: Sequence[Item], scores: Sequence[np.ndarray]) -> list[str]:
    """Notes on a benchmark's items with the scores ``[C]`` of each."""
    notes = equal_scores(np.concatenate(list(scores)), "scores")
    notes += _repeated([(repr(item.prompt), item.completions) for item in items], "items")
    if len({item.cluster for item in items}) == 1:
        notes.append("all items are of one question: there are no intervals")
    return notes + _empty([text for item in items for text in item.completions])


def record_notes(results: Sequence[Sequence[EvalRecord]]) -> list[str]:
    """Notes on the records of all methods, each in the order of the same prompts."""
    notes = equal_scores([one.metrics["reward"] for records in results for one in records])
    notes += _repeated([repr(one.generation.prompt) for one in results[0]], "prompts")
    return notes + _empty([one.generation.completion for own in results for one in own])


def _repeated(keys: Sequence[Hashable], noun: str) -> list[str]:
    again = len(keys) - len(set(keys))
    return [f"{again} of {len(keys)} {noun} repeat another one"] if again else []


def _empty(texts: Sequence[str]) -> list[str]:
    empty = sum(not text.strip() for text in texts)
    return [f"{empty} of {len(texts)} responses are empty"] if empty else []


def control_note(
    control: str, figure: str, alone: Interval, reward: float, gain: Interval,
    within: Interval | None = None,
) -> str | None:
    """A note where the reward does not beat a control, or adds nothing within one source; None
    otherwise, and where there are too few clusters to tell.

    Args:
        control: name of the control, such as length or source.
        figure: name of the figure compared, such as AUROC.
        alone: the control's figure.
        reward: the reward's figure on the same rows.
        gain: the reward's figure minus the control's.
        within: the reward's figure within one source, where the control is the source. The reward
            adds nothing there if its interval holds one half while the source alone is above it.
    """
    nothing = within is not None and within.low <= 0.5 < alone.low
    if math.isnan(gain.low) or (gain.low > 0 and not nothing):
        return None
    against = "above" if gain.low > 0 else "below" if gain.high < 0 else "not above"
    text = (
        f"{control} alone: {figure} {alone.value:.3f}; the reward's {reward:.3f} is {against} it "
        f"(difference {gain.value:+.3f}, {gain.low:+.3f} to {gain.high:+.3f})"
    )
    if within is None:
        return text
    text += f"; within one source the reward's is {within.value:.3f}"
    if not math.isnan(within.low):
        text += f" ({within.low:.3f} to {within.high:.3f})"
    return text + (", so the reward adds nothing within source" if nothing else "")
