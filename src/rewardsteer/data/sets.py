"""Comparisons as token ids, and the three sets prepared from them: full, partial and SFT."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import one_prompt, render_and_encode
from rewardsteer.records import Comparison

Row = dict[str, Any]
# Columns of the full set with the models that wrote the responses, where a source names them.
WRITERS = ("chosen_by", "rejected_by")


class TokenizedPair(NamedTuple):
    """A comparison as token ids; responses include their end tokens. A row with one response has no
    rejected ids."""

    id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    margin: float


class Prepared(NamedTuple):
    """A comparison that is kept.

    Attributes:
        comparison: as the source gave it, with its responses as text.
        pair: the same, tokenized.
        prompt: the rendered prompt.
        step_lengths: tokens of the chosen response up to the end of each labelled step.
    """

    comparison: Comparison
    pair: TokenizedPair
    prompt: str
    step_lengths: list[int] = []  # noqa: RUF012 - read only

    @property
    def prompt_ids(self) -> list[int]:
        """Token ids of the prompt."""
        return self.pair.prompt_ids

    @property
    def response_ids(self) -> list[list[int]]:
        """Token ids of each response."""
        one = [self.pair.chosen_ids]
        return one if self.comparison.single else [*one, self.pair.rejected_ids]


def encode_comparison(comparison: Comparison, template: Template, tokenizer: Any) -> TokenizedPair:
    """Render and tokenize a comparison."""
    return encode_comparisons([comparison], template, tokenizer)[0]


def encode_comparisons(
    comparisons: Sequence[Comparison], template: Template, tokenizer: Any
) -> list[TokenizedPair]:
    """Render and tokenize comparisons with two calls of the tokenizer in all."""
    sides = [[one.chosen] if one.single else [one.chosen, one.rejected] for one in comparisons]
    owners = [one for one, texts in zip(comparisons, sides, strict=True) for _ in texts]
    rows = iter(render_and_encode(
        [one.prompt for one in owners], [text for texts in sides for text in texts],
        template, tokenizer, [one.tools for one in owners],
    ))
    pairs = []
    for comparison in comparisons:
        first, rejected_ids = next(rows), list[int]()
        chosen = first.row
        if not comparison.single:
            chosen, rejected = one_prompt([first, next(rows)], template, tokenizer)
            rejected_ids = rejected.response_ids
        pairs.append(TokenizedPair(
            comparison.id, chosen.prompt_ids, chosen.response_ids, rejected_ids, comparison.margin
        ))
    return pairs


def set_tables(
    rows: Sequence[Prepared], *, start: int, count: int | None, seed: int,
    extras: Sequence[str] = (), steps: bool = False, writers: bool = False,
) -> dict[str, Any]:
    """The tables of the three sets (see `rewardsteer.data.store`), one row per comparison.

    Args:
        rows: the comparisons.
        start, count, seed: choice of the prefixes; see `partial_row`.
        extras: names of the rows' further numbers; where empty, there is no such column.
        steps: whether there are columns for labelled steps.
        writers: whether the full set has the columns `WRITERS`.
    """
    import pyarrow as pa

    pairs = [row.pair for row in rows]
    ids = pa.list_(pa.int32())

    def texts(values: Any) -> Any:
        return pa.array(values, pa.string())

    key = texts([pair.id for pair in pairs])
    prompt = texts([row.prompt for row in rows])
    chosen = texts([row.comparison.chosen for row in rows])
    margin = pa.array([float(pair.margin) for pair in pairs], pa.float64())
    prompt_ids, chosen_ids, rejected_ids = (
        pa.array([pair[place] for pair in pairs], ids) for place in (1, 2, 3)
    )
    numbers = [pa.array([row.comparison.extras.get(name) for row in rows], pa.float64())
               for name in extras]
    further = {"extras": pa.StructArray.from_arrays(numbers, names=list(extras))} if extras else {}
    labelled = {
        "step_lengths": pa.array([row.step_lengths for row in rows], ids),
        "step_labels": pa.array(
            [row.comparison.step_labels for row in rows], pa.list_(pa.float64())
        ),
    } if steps else {}
    lengths = [prefix_lengths(pair, start=start, count=count, seed=seed) for pair in pairs]
    return {
        "full": pa.table({
            "id": key, "prompt": prompt, "chosen": chosen,
            "rejected": texts([row.comparison.rejected for row in rows]), "margin": margin,
            "source": texts([row.comparison.source for row in rows]),
            "subset": texts([row.comparison.subset for row in rows]),
            "prompt_ids": prompt_ids, "chosen_ids": chosen_ids, "rejected_ids": rejected_ids,
            **further,
            **({one: texts([getattr(row.comparison, one) for row in rows]) for one in WRITERS}
               if writers else {}),
        }),
        "partial": pa.table({
            "id": key, "prompt_ids": prompt_ids, "chosen_ids": chosen_ids,
            "rejected_ids": rejected_ids, "margin": margin,
            "chosen_lengths": pa.array([one for one, _ in lengths], ids),
            "pair_lengths": pa.array([both for _, both in lengths], ids), **further, **labelled,
        }),
        "sft": pa.table({
            "id": key, "prompt": prompt, "label": chosen, "prompt_ids": prompt_ids,
            "label_ids": chosen_ids,
        }),
    }


def partial_row(pair: TokenizedPair, *, start: int, count: int | None, seed: int) -> Row:
    """A row of the partial set: the comparison with the response prefixes that training uses.

    Args:
        pair: the comparison.
        start: prefixes have more than this many response tokens (published: 10).
        count: number of lengths to draw without replacement; None takes all.
        seed: seeds the draw together with the row's id.
    """
    chosen_lengths, pair_lengths = prefix_lengths(pair, start=start, count=count, seed=seed)
    return {
        "id": pair.id,
        "prompt_ids": pair.prompt_ids,
        "chosen_ids": pair.chosen_ids,
        "rejected_ids": pair.rejected_ids,
        "margin": pair.margin,
        "chosen_lengths": chosen_lengths,
        "pair_lengths": pair_lengths,
    }


def prefix_lengths(
    pair: TokenizedPair, *, start: int, count: int | None, seed: int
) -> tuple[list[int], list[int]]:
    """``chosen_lengths`` and ``pair_lengths`` of `partial_row`."""
    # The maximum constraint needs a continuation, so it uses proper prefixes only.
    chosen_end = len(pair.chosen_ids) - 1
    pair_end = min(len(pair.chosen_ids), len(pair.rejected_ids))
    ends = (chosen_end, pair_end)
    if count is None:
        chosen, both = (list(range(start + 1, end + 1)) for end in ends)
        return chosen, both
    rng = random.Random(f"{seed}/{pair.id}")
    chosen, both = (_draw(range(start + 1, end + 1), count, rng) for end in ends)
    return chosen, both


def _draw(lengths: range, count: int, rng: random.Random) -> list[int]:
    if count >= len(lengths):
        return list(lengths)
    return sorted(rng.sample(lengths, count))
