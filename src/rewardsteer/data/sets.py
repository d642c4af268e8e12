"""From tokenized comparisons to the rows of the three sets: full, partial, SFT."""

import random
from typing import Any

from rewardsteer.data.tokenize import TokenizedPair
from rewardsteer.records import Comparison

Row = dict[str, Any]


def full_row(comparison: Comparison, pair: TokenizedPair, prompt: str) -> Row:
    """A whole comparison: text for people, ids for training.

    Args:
        comparison: as the source gave it; its responses are kept as text.
        pair: the same, tokenized.
        prompt: the rendered prompt.
    """
    return {
        "id": pair.id,
        "prompt": prompt,
        "chosen": comparison.chosen,
        "rejected": comparison.rejected,
        "margin": pair.margin,
        "source": comparison.source,
        "subset": comparison.subset,
        "prompt_ids": pair.prompt_ids,
        "chosen_ids": pair.chosen_ids,
        "rejected_ids": pair.rejected_ids,
    }


def partial_row(pair: TokenizedPair, *, start: int, count: int | None, seed: int) -> Row:
    """The prefix lengths to look at in a comparison.

    Args:
        pair: the comparison.
        start: prefixes have more than this many response tokens (published: 10).
        count: how many lengths to draw without replacement; None takes all.
        seed: with the row's id, of the draw.
    """
    # A whole response has no expansion to be worth: for the maximum constraint, proper prefixes.
    chosen_end = len(pair.chosen_ids) - 1
    pair_end = min(len(pair.chosen_ids), len(pair.rejected_ids))
    rng = random.Random(f"{seed}/{pair.id}")
    return {
        "id": pair.id,
        "prompt_ids": pair.prompt_ids,
        "chosen_ids": pair.chosen_ids,
        "rejected_ids": pair.rejected_ids,
        "margin": pair.margin,
        "chosen_lengths": _draw(range(start + 1, chosen_end + 1), count, rng),
        "pair_lengths": _draw(range(start + 1, pair_end + 1), count, rng),
    }


def sft_row(comparison: Comparison, pair: TokenizedPair, prompt: str) -> Row:
    """The chosen response as a supervised label."""
    return {
        "id": pair.id,
        "prompt": prompt,
        "label": comparison.chosen,
        "prompt_ids": pair.prompt_ids,
        "label_ids": pair.chosen_ids,
    }


def _draw(lengths: range, count: int | None, rng: random.Random) -> list[int]:
    if count is None or count >= len(lengths):
        return list(lengths)
    return sorted(rng.sample(lengths, count))
