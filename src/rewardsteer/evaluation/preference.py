"""How often a reward model ranks held-out comparisons right, how sure it is, what it leans on."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from rewardsteer.data.store import check_template, load_manifest, load_set
from rewardsteer.errors import DataError
from rewardsteer.evaluation.calibration import pair_calibration
from rewardsteer.evaluation.metrics import preference_accuracy
from rewardsteer.evaluation.statistics import proportion
from rewardsteer.models.scorer import Scorer
from rewardsteer.records import Comparison


def evaluate_preference(
    scorer: Scorer, data: Path, *, split: str = "test", batch_size: int = 16
) -> dict[str, Any]:
    """Figures of a prepared folder's comparisons.

    Args:
        scorer: the reward model.
        data: a prepared folder, made with the reward model's tokenizer.
        split: ``test`` or ``train``.
        batch_size: rows read together.

    Returns:
        see `evaluate_comparisons`.

    Raises:
        MismatchError: the data was written with another template than the model's training data.
        DataError: there is no comparison that the model can read.
    """
    manifest = load_manifest(data)
    check_template(manifest, scorer.template, data, scorer.name)
    rows = load_set(data, split, "full")
    prompts = [len(ids) for ids in rows["prompt_ids"]]
    lengths = _lengths(rows["chosen_ids"], rows["rejected_ids"])
    kept = _readable(scorer, np.array([prompts, prompts]).T, lengths)
    readable = rows.select(kept)
    rewards = [
        scorer.score_ids(readable["prompt_ids"], readable[f"{side}_ids"], batch_size=batch_size)
        for side in ("chosen", "rejected")
    ]
    pairs = _Pairs(np.stack(rewards, axis=1), lengths[kept], list(readable["subset"]))
    return _summary(pairs, too_long=len(rows) - len(kept))


def evaluate_comparisons(
    scorer: Scorer, comparisons: Sequence[Comparison], *, batch_size: int = 16
) -> dict[str, Any]:
    """Figures of comparisons, written with the reward model's own template.

    Args:
        scorer: the reward model.
        comparisons: pairs of any source.
        batch_size: rows read together.

    Returns:
        ``{"all": figures, "subsets": {name: figures}, "too_long": n, "calibration": figures,
        "length_bias": figures}``. Accuracies have 95 % Wilson intervals, a tie counts one half.
        ``too_long`` pairs exceed what the model reads; they are in no figure. ``calibration``
        asks how often pairs come out as sigmoid(reward difference) says. ``length_bias`` looks at
        pairs by which response has more tokens. A figure that is not defined is left out.

    Raises:
        DataError: there is no comparison that the model can read.
    """
    prompts = [pair.prompt for pair in comparisons]
    sides = [[pair.chosen for pair in comparisons], [pair.rejected for pair in comparisons]]
    encoded = [scorer.encode(prompts, texts) for texts in sides]
    before = _lengths(*(prompt_ids for prompt_ids, _ in encoded))
    lengths = _lengths(*(response_ids for _, response_ids in encoded))
    kept = _readable(scorer, before, lengths)
    rewards = [
        scorer.score([prompts[i] for i in kept], [texts[i] for i in kept], batch_size=batch_size)
        for texts in sides
    ]
    subsets = [comparisons[i].subset for i in kept]
    pairs = _Pairs(np.stack(rewards, axis=1), lengths[kept], subsets)
    return _summary(pairs, too_long=len(comparisons) - len(kept))


class _Pairs(NamedTuple):
    """Scored pairs; the columns are chosen and rejected.

    Attributes:
        rewards: ``[N, 2]``.
        lengths: ``[N, 2]``, of the responses in tokens.
        subsets: their names.
    """

    rewards: np.ndarray
    lengths: np.ndarray
    subsets: list[str]


def _lengths(chosen: Iterable[Sequence[int]], rejected: Iterable[Sequence[int]]) -> np.ndarray:
    counts = [(len(first), len(second)) for first, second in zip(chosen, rejected, strict=True)]
    return np.array(counts, dtype=int).reshape(-1, 2)


def _readable(scorer: Scorer, prompts: np.ndarray, responses: np.ndarray) -> list[int]:
    """Numbers of the pairs whose rows both fit: a cut response would be another response."""
    limit = scorer.position_limit
    longest = (prompts + responses).max(axis=1, initial=0)
    kept = [i for i, length in enumerate(longest) if limit is None or length <= limit]
    if not kept:
        raise DataError(
            "Expected comparisons to evaluate, got none." if not len(longest) else
            f"All {len(longest)} comparisons are longer than the {limit} tokens that the reward "
            "model reads."
        )
    return kept


def _summary(pairs: _Pairs, *, too_long: int) -> dict[str, Any]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, subset in enumerate(pairs.subsets):
        groups[subset or "none"].append(index)
    return {
        "all": _figures(pairs.rewards),
        "subsets": {name: _figures(pairs.rewards[rows]) for name, rows in sorted(groups.items())},
        "too_long": too_long,
        "calibration": pair_calibration(pairs.rewards[:, 0] - pairs.rewards[:, 1]),
        "length_bias": _length_bias(pairs),
    }


def _figures(rewards: np.ndarray) -> dict[str, float]:
    margins = rewards[:, 0] - rewards[:, 1]
    return {
        **_accuracy(rewards), "margin": float(margins.mean()),
        "margin_median": float(np.median(margins)),
    }


def _accuracy(rewards: np.ndarray) -> dict[str, float]:
    if not len(rewards):
        return {"count": 0}
    share = preference_accuracy(rewards[:, 0].tolist(), rewards[:, 1].tolist())
    accuracy = proportion(share * len(rewards), len(rewards))
    return {
        "count": len(rewards), "accuracy": accuracy.value, "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
    }


def _length_bias(pairs: _Pairs) -> dict[str, Any]:
    margins = pairs.rewards[:, 0] - pairs.rewards[:, 1]
    longer_by = pairs.lengths[:, 0] - pairs.lengths[:, 1]
    figures: dict[str, Any] = {
        "longer": _accuracy(pairs.rewards[longer_by > 0]),
        "shorter": _accuracy(pairs.rewards[longer_by < 0]),
        "equal": _accuracy(pairs.rewards[longer_by == 0]),
    }
    # Ranks that are all the same correlate with nothing.
    if np.ptp(margins) > 0 and np.ptp(longer_by) > 0:
        figures["spearman"] = float(stats.spearmanr(margins, longer_by).statistic)
    return figures
