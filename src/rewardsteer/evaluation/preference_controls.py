"""Control scores of pairs that ignore the responses' text: their writer and their length."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rewardsteer.data.balancing import SourcedPair, pairs_told_apart
from rewardsteer.evaluation.data_notes import control_note
from rewardsteer.evaluation.statistics import Interval, share, wins

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
    found: dict[str, Any] = {"length": _figures(longer, prompts)}
    counts = np.unique(prompts, return_inverse=True)[1]
    found["by_prompt"] = _figures(
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
        found["source"] = _figures(source, prompts[named])
        within = None
        if same.any():
            found["within_source"] = _figures(won[same], prompts[same])
            within = share(won[same], prompts[same])
        notes.append(_note("source", source, won[named], prompts[named], within))
    found["notes"] = [one for one in notes if one is not None]
    return found


def _figures(values: np.ndarray, prompts: np.ndarray) -> dict[str, float]:
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
