"""Figures of texts and rewards. Every function takes plain lists or arrays."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from rapidfuzz.distance import Indel


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Share of n-grams that are different, over all texts; 0 when no text has n tokens."""
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """ROUGE-L F1 = 2·LCS/(m + n) of two token sequences; 1 for two empty ones.

    The normalised insertion-deletion similarity is that same quotient.
    """
    return float(Indel.normalized_similarity(first, second))


def pairwise_rouge_l(
    texts: Sequence[Sequence[str]], *, limit: int = 2000, seed: int = 0
) -> float:
    """Mean ROUGE-L over pairs of texts: low means diverse. NaN with fewer than two texts.

    Args:
        texts: tokenized texts.
        limit: when there are more pairs than this, so many are drawn.
        seed: of the draw.
    """
    count = len(texts)
    if count < 2:
        return float("nan")
    if count * (count - 1) // 2 <= limit:
        pairs = list(combinations(range(count), 2))
    else:
        rng = np.random.default_rng(seed)
        first = rng.integers(0, count, limit)
        # An offset of 1..count-1 never meets the text itself.
        second = (first + rng.integers(1, count, limit)) % count
        pairs = [(int(a), int(b)) for a, b in zip(first, second, strict=True)]
    return float(np.mean([rouge_l(texts[a], texts[b]) for a, b in pairs]))


def preference_accuracy(chosen: Sequence[float], rejected: Sequence[float]) -> float:
    """Share of pairs in which the chosen response has the higher reward; a tie counts one half."""
    first, second = np.asarray(chosen, dtype=float), np.asarray(rejected, dtype=float)
    return float((first > second).mean() + 0.5 * (first == second).mean())


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the ROC curve; NaN when all labels are the same (it is undefined)."""
    from sklearn.metrics import roc_auc_score

    if len(set(labels)) < 2:
        return float("nan")
    return float(roc_auc_score(labels, scores))
