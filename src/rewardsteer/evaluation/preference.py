"""Accuracy, calibration and length bias of a reward model on held-out comparisons."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.data.sets import WRITERS
from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.data.store_checks import check_template
from rewardsteer.errors import DataError
from rewardsteer.evaluation.preference_figures import ScoredPairs, summarise
from rewardsteer.evaluation.reward_benchmarks.run import score_texts
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import NUMBERED_ROW, ROWS_WITH_TOOLS, TextScorer, require_tokens
from rewardsteer.records import Comparison

Announce = Callable[[int, int], None]
# Batches between two announcements; rows of similar length within them share a batch.
_TOGETHER = 8


def evaluate_preference(
    scorer: TextScorer, data: Path, *, batch_size: int = 16,
    announce: Announce = lambda done, total: None,
) -> dict[str, Any]:
    """Figures of a prepared folder's test comparisons.

    Args:
        scorer: the reward model.
        data: a prepared folder, made with the reward model's tokenizer.
        batch_size: rows read together.
        announce: called with the number of pairs done and the total.

    Returns:
        see `evaluate_comparisons`.

    Raises:
        MismatchError: the data was written with another template than the model's training data.
        DataError: there is no comparison that the model can read.
    """
    manifest, scorer = load_manifest(data), require_tokens(scorer, "prepared data")
    check_template(manifest, scorer.template, data, scorer.name, scorer.tokenizer)
    rows = load_set(data, "test", "full")
    responses = [list(rows["chosen_ids"]), list(rows["rejected_ids"])]
    prompts = [list(ids) for ids in rows["prompt_ids"]]
    writers: list[tuple[str, str]] = []
    if set(WRITERS) <= set(rows.column_names):
        writers = list(zip(*(rows[one] for one in WRITERS), strict=True))
    return _evaluate(
        scorer, prompts, responses, list(rows["subset"]), batch_size, announce, writers=writers,
        texts=list(zip(*(rows[one] for one in ("prompt", "chosen", "rejected")), strict=True)),
    )


def evaluate_comparisons(
    scorer: TextScorer, comparisons: Sequence[Comparison], *, batch_size: int = 16,
    announce: Announce = lambda done, total: None, file: Path | None = None,
) -> dict[str, Any]:
    """Figures of comparisons, written with the reward model's own template.

    Args:
        scorer: the reward model.
        comparisons: pairs of any source.
        batch_size: rows scored together.
        announce: called with the number of pairs done and the total.
        file: JSONL that keeps the rewards of a model that scores texts, such as one behind an
            address; see `rewardsteer.evaluation.reward_benchmarks.run.score_texts`.

    Returns:
        ``{"all": figures, "subsets": {name: figures}, "too_long": n, "calibration": figures,
        "length_bias": figures, …}``. Accuracies have 95 % intervals over prompts, since pairs of
        one prompt are alike (`rewardsteer.evaluation.statistics.share`); a tie counts one half.
        ``too_long`` pairs exceed the model's maximum length; no figure includes them.
        ``calibration`` compares sigmoid(reward difference) with how often the chosen response is
        preferred.
        ``length_bias`` groups pairs by which response has more tokens, or more characters where the
        reward model scores texts alone. ``controls``: see
        `rewardsteer.evaluation.preference_figures`. ``notes`` are sentences on unusual data
        (`rewardsteer.evaluation.data_notes`). Undefined figures are left out. ``histogram`` and
        ``reward_by_length``: see `rewardsteer.evaluation.distributions`.

    Raises:
        DataError: there is no comparison that the model can score.
    """
    if not scorer.reads_tokens:
        return _evaluate_texts(scorer, comparisons, batch_size, announce, file)
    scorer = require_tokens(scorer, "comparisons as token ids")
    prompts = [pair.prompt for pair in comparisons]
    tools = [pair.tools for pair in comparisons]
    prompt_ids, chosen_ids = scorer.encode(
        prompts, [pair.chosen for pair in comparisons], tools=tools
    )
    _, rejected_ids = scorer.encode(prompts, [pair.rejected for pair in comparisons], tools=tools)
    subsets = [pair.subset for pair in comparisons]
    return _evaluate(
        scorer, prompt_ids, [chosen_ids, rejected_ids], subsets, batch_size, announce,
        writers=_writers(comparisons), texts=_texts(comparisons),
    )


def _writers(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    return [(one.chosen_by, one.rejected_by) for one in comparisons]


def _texts(comparisons: Sequence[Comparison]) -> list[tuple[str, str, str]]:
    return [(repr(one.prompt), one.chosen, one.rejected) for one in comparisons]


def _evaluate_texts(
    scorer: TextScorer, comparisons: Sequence[Comparison], batch_size: int, announce: Announce,
    file: Path | None,
) -> dict[str, Any]:
    if not comparisons:
        raise DataError("Expected comparisons to evaluate, got none.")
    if any(one.tools for one in comparisons):
        require_tokens(scorer, ROWS_WITH_TOOLS)
    found = score_texts(
        scorer, [one.prompt for one in comparisons for _ in range(2)],
        [text for one in comparisons for text in (one.chosen, one.rejected)],
        batch_size=batch_size, file=file,
        announce=lambda done, total: announce(done // 2, total // 2),
    )
    reasons = [one for one in found if isinstance(one, DataError)]
    values = [math.nan if isinstance(one, DataError) else one for one in found]
    rewards = np.array(values).reshape(-1, 2)
    kept = np.flatnonzero(np.isfinite(rewards).all(axis=1))
    if not len(kept):
        raise reasons[0]
    some = [comparisons[int(i)] for i in kept]
    lengths = np.array([[len(pair.chosen), len(pair.rejected)] for pair in some])
    prompts = np.unique([repr(one.prompt) for one in some], return_inverse=True)[1]
    pairs = ScoredPairs(
        rewards[kept], lengths, [one.subset for one in some], prompts, _writers(some)
    )
    figures = summarise(pairs, _texts(some), too_long=0)
    left_out = len(comparisons) - len(kept)
    if left_out:
        figures["notes"].append(
            f"{left_out} of {len(comparisons)} pairs could not be scored and are left out; one "
            f"reason: {NUMBERED_ROW.sub('This row', str(reasons[0]))}"
        )
    return figures


def _evaluate(
    scorer: Scorer, prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]], subsets: Sequence[str], batch_size: int,
    announce: Announce, texts: Sequence[tuple[str, str, str]],
    writers: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Figures of pairs as token ids; ``responses`` holds the chosen and the rejected ones."""

    def score(part: Sequence[int], column: int) -> np.ndarray:
        return scorer.score_ids(
            [prompts[i] for i in part], [responses[column][i] for i in part],
            batch_size=batch_size, numbers=[one + 1 for one in part],
        )

    lengths = np.array([[len(ids) for ids in side] for side in responses], dtype=int).T
    before = np.array([len(ids) for ids in prompts], dtype=int)
    kept = _readable(scorer, before[:, None] + lengths)
    pairs = ScoredPairs(
        _rewards(kept, score, batch_size, announce), lengths[kept], [subsets[i] for i in kept],
        np.array([hash(tuple(prompts[i])) for i in kept]),
        [writers[i] for i in kept] if writers else [],
    )
    return summarise(pairs, [texts[i] for i in kept], too_long=len(prompts) - len(kept))


def _rewards(
    rows: Sequence[int], score: Callable[[Sequence[int], int], np.ndarray], batch_size: int,
    announce: Announce,
) -> np.ndarray:
    """Rewards ``[N, 2]`` of the pairs with indices ``rows``, part by part; ``score`` gets indices,
    and 0 for the chosen responses or 1 for the rejected ones."""
    rewards = np.empty((len(rows), 2))
    for start in range(0, len(rows), _TOGETHER * batch_size):
        announce(start, len(rows))
        part = rows[start : start + _TOGETHER * batch_size]
        for column in (0, 1):
            rewards[start : start + len(part), column] = score(part, column)
    announce(len(rows), len(rows))
    return rewards


def _readable(scorer: Scorer, lengths: np.ndarray) -> list[int]:
    """Indices of the pairs whose two sequences (``[N, 2]`` lengths) fit; none is truncated."""
    limit = scorer.position_limit
    longest = lengths.max(axis=1, initial=0)
    kept = [i for i, length in enumerate(longest) if limit is None or length <= limit]
    if not kept:
        raise DataError(
            "Expected comparisons to evaluate, got none." if not len(longest) else
            f"All {len(longest)} comparisons are longer than the {limit} tokens that the reward "
            "model takes."
        )
    return kept
