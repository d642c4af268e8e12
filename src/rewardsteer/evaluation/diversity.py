"""How diverse texts are: shares of distinct n-grams and pairwise ROUGE-L."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from rapidfuzz.distance import Indel


def distinct_n(texts: Sequence[Sequence[str]], n: int) -> float:
    """Share of distinct n-grams among all n-grams of the texts; 0 when no text has n tokens."""
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
        limit: largest number of pairs; of more pairs so many are drawn.
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
