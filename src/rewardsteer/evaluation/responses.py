"""Agreement of a reward model with given numbers of responses: ratings, ranks, labels."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.data.responses import Responses
from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.run import score_texts
from rewardsteer.evaluation.statistics import (
    auroc_interval,
    correlation_interval,
    over,
    share,
    wins,
)
from rewardsteer.models.text_scorer import NUMBERED_ROW, TextScorer, score_with_tools

logger = logging.getLogger(__name__)

Announce = Callable[[int, int], None]


def evaluate_responses(
    scorer: TextScorer, rows: Sequence[Responses], *, batch_size: int = 16,
    announce: Announce = lambda done, total: None, file: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Figures of agreement by the name of the number (such as a rating's name).

    Args:
        rows: of the sources ``ratings``, ``ranked`` or ``labels``.
        batch_size: responses scored together.
        announce: called with the number of responses done and the total.
        file: JSONL that keeps the rewards; see
            `rewardsteer.evaluation.reward_benchmarks.run.score_texts`.

    Returns:
        for labels (only 0 and 1) ``auroc``, else ``pearson`` and ``spearman``; where responses to
        one prompt have different numbers also ``pair_accuracy``, the share of such pairs that the
        rewards order alike (a tie counts one half). Each has its 95 % interval over prompts as
        ``*_low`` and ``*_high``. ``count`` and ``prompts`` are the numbers of responses and
        prompts. Undefined figures are left out.

    Raises:
        DataError: no rows, or no response that the model can score; the others are left out with
            a warning.
    """
    if not rows:
        raise DataError("Expected responses with numbers to evaluate, got none.")
    prompts = [row.prompt for row in rows for _ in row.responses]
    completions = [one for row in rows for one in row.responses]
    tools = [row.tools for row in rows for _ in row.responses]
    found: Sequence[float | DataError]
    if any(tools):
        found = [*score_with_tools(scorer, prompts, completions, tools, batch_size=batch_size)]
    else:
        found = score_texts(
            scorer, prompts, completions, batch_size=batch_size, file=file, announce=announce
        )
    reasons = [one for one in found if isinstance(one, DataError)]
    rewards = np.array([math.nan if isinstance(one, DataError) else one for one in found])
    if len(reasons) == len(completions):
        raise reasons[0]
    if reasons:
        logger.warning(
            "%d of %d responses could not be scored and are left out; one reason: %s",
            len(reasons), len(completions), NUMBERED_ROW.sub("This response", str(reasons[0])),
        )
    keys = np.unique([repr(prompt) for prompt in prompts], return_inverse=True)[1]
    names = dict.fromkeys(name for row in rows for name in row.numbers)
    return {name: _figures(rewards, _column(rows, name), keys) for name in names}


def _column(rows: Sequence[Responses], name: str) -> np.ndarray:
    """The numbers of one name ``[N]``; NaN where a response has none."""
    return np.array([
        np.nan if value is None else float(value)
        for row in rows for value in row.numbers.get(name, [None] * len(row.responses))
    ])


def _figures(rewards: np.ndarray, values: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(values) & np.isfinite(rewards)
    rewards, values, prompts = rewards[known], values[known], prompts[known]
    count = len(np.unique(prompts))
    found: dict[str, Any] = {
        "count": len(values), "prompts": count, "intervals": over(count, "prompt"),
    }
    if set(values.tolist()) <= {0.0, 1.0}:
        area = auroc_interval(
            (values > 0).tolist(), rewards.tolist(), groups=[str(one) for one in prompts]
        )
        found |= area.figures("auroc")
    else:
        for name, ranks in (("pearson", False), ("spearman", True)):
            found |= correlation_interval(rewards, values, prompts, ranks=ranks).figures(name)
    right, owners = _pairs(rewards, values, prompts)
    if right:
        found |= share(right, owners).figures("pair_accuracy")
        found["pairs"] = len(right)
    return found


def _pairs(
    rewards: np.ndarray, values: np.ndarray, prompts: np.ndarray
) -> tuple[list[float], list[str]]:
    """For pairs of one prompt with different values: whether the rewards order them alike, and
    the prompt."""
    right: list[float] = []
    owners: list[str] = []
    for number, rows in enumerate(_by_prompt(prompts)):
        gap = values[rows][:, None] - values[rows][None, :]
        found = wins(rewards[rows][:, None], rewards[rows][None, :])[gap > 0]
        right += found.tolist()
        owners += [str(number)] * len(found)
    return right, owners


def _by_prompt(prompts: np.ndarray) -> list[np.ndarray]:
    """Indices of the responses of each prompt."""
    order = np.argsort(prompts, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(prompts[order])) + 1)
