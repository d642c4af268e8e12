"""What is odd in the data of an evaluation, in sentences; figures are given all the same."""

from collections.abc import Hashable, Sequence

import numpy as np

from rewardsteer.evaluation.reward_benchmarks.base import Item
from rewardsteer.records import EvalRecord


def equal_scores(scores: Sequence[float] | np.ndarray, noun: str = "rewards") -> list[str]:
    """That all are the same, where they are."""
    if not len(scores) or np.ptp(scores) > 0:
        return []
    return [f"all {len(scores)} {noun} are {scores[0]:g}: they rank nothing"]


def pair_notes(
    pairs: Sequence[tuple[Hashable, str, str]], rewards: np.ndarray
) -> list[str]:
    """Of pairs as prompt, chosen and rejected response, with their rewards ``[N, 2]``."""
    notes = equal_scores(rewards.ravel())
    count = len(pairs)
    if not notes and (ties := int((rewards[:, 0] == rewards[:, 1]).sum())):
        notes.append(f"{ties} of {count} pairs have equal rewards: each counts one half")
    if same := sum(chosen == rejected for _, chosen, rejected in pairs):
        notes.append(f"{same} of {count} pairs hold the same response twice")
    notes += _repeated(pairs, "pairs")
    return notes + _empty([text for _, *both in pairs for text in both])


def item_notes(items: Sequence[Item], scores: Sequence[np.ndarray]) -> list[str]:
    """Of a benchmark's items with their scores ``[C]`` each."""
    notes = equal_scores(np.concatenate(list(scores)), "scores")
    notes += _repeated([(repr(item.prompt), item.completions) for item in items], "items")
    if len({item.cluster for item in items}) == 1:
        notes.append("all items are of one question: there are no intervals")
    return notes + _empty([text for item in items for text in item.completions])


def record_notes(results: Sequence[Sequence[EvalRecord]]) -> list[str]:
    """Of the records of all methods, in the order of the same prompts."""
    notes = equal_scores([one.metrics["reward"] for records in results for one in records])
    notes += _repeated([repr(one.generation.prompt) for one in results[0]], "prompts")
    return notes + _empty([one.generation.completion for own in results for one in own])


def _repeated(keys: Sequence[Hashable], noun: str) -> list[str]:
    again = len(keys) - len(set(keys))
    return [f"{again} of {len(keys)} {noun} repeat another one"] if again else []


def _empty(texts: Sequence[str]) -> list[str]:
    empty = sum(not text.strip() for text in texts)
    return [f"{empty} of {len(texts)} responses are empty"] if empty else []
