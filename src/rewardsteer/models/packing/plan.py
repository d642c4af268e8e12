"""Packing planned in collation: a pair's common beginning once, several pairs a row.

A pair of responses shares its prompt, often more. A group of rows with a common beginning is laid
out as ``[beginning, rest of the first, rest of the second]``; the groups of a batch then share
rows, as many as cost least. Which tokens see which is a block mask (see `block_mask`).
"""

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

Tokens = Sequence[int]

# Numbers of rows that are tried, about.
_CHOICES = 32


class Group(NamedTuple):
    """Rows that begin alike.

    Attributes:
        rows: their numbers in the batch.
        shared: how many tokens they have in common at the start.
        size: tokens of the group when the common ones are read once.
    """

    rows: tuple[int, ...]
    shared: int
    size: int

    def segments(self, rows: Sequence[Tokens], at: int = 0) -> list[tuple[int, int, int, int]]:
        """Runs of tokens that see one another, when the group is laid out from a column on: first
        column, the one after the last, the same of the beginning that they see besides.

        The beginning and the rest of the first row are one run.
        """
        end = at + len(rows[self.rows[0]])
        found = [(at, end, at, at)]
        for row in self.rows[1:]:
            start, end = end, end + len(rows[row]) - self.shared
            found.append((start, end, at, at + self.shared))
        return [one for one in found if one[0] < one[1]]


def common_beginning(rows: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with; for a single row, its length."""
    shortest = min(len(row) for row in rows)
    if len(rows) == 1:
        return shortest
    first = np.asarray(rows[0][:shortest])
    same = np.ones(shortest, dtype=bool)
    for row in rows[1:]:
        same &= first == np.asarray(row[:shortest])
    return shortest if same.all() else int(same.argmin())


def group(rows: Sequence[Tokens], members: Sequence[int]) -> Group:
    """The group of some rows of a batch."""
    shared = common_beginning([rows[row] for row in members])
    return Group(tuple(members), shared, shared + sum(len(rows[row]) - shared for row in members))


def balance_bins(sizes: Sequence[int], bins: int) -> list[list[int]]:
    """Items in so many bins, about equally full: the largest first, each where least is."""
    filled: list[list[int]] = [[] for _ in range(bins)]
    loads = [(0, number) for number in range(bins)]
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        load, number = heapq.heappop(loads)
        filled[number].append(item)
        heapq.heappush(loads, (load + sizes[item], number))
    return filled


class PackingCosts(NamedTuple):
    """What attention costs, in tokens that pass through the layers; packs batches by it.

    Attributes:
        per_query_key: of a query-key pair.
        per_kernel_call: of a call of the attention that computes segments, whatever its size; None
            where attention takes a mask over whole rows.
    """

    per_query_key: float
    per_kernel_call: float | None = None

    def pack(
        self, rows: Sequence[Tokens], pairs: Sequence[Sequence[int]], *, starts: Sequence[int],
        width: int, padding: int,
    ) -> dict[str, torch.Tensor] | None:
        """The cheapest packed form of padded rows ``[R, T]``, or None where padding is cheaper.

        Counted in tokens through the layers. A padded row costs T tokens and, under causal
        attention, T²/2 query-key pairs; a packed row of width W costs W tokens and, as a dense mask
        skips nothing, W² pairs. An attention that computes segments costs the pairs that see each
        other and its calls, however wide the row is, so all goes into one row without padding.

        Args:
            rows: token ids of each row of the batch.
            pairs: which rows belong together, in any number; each row once.
            starts: column of each row's first token in the padded form.
            width: T.
            padding: id for what stays empty.

        Returns:
            The fields of `rewardsteer.tensors.Packing`.
        """
        best: tuple[list[Group], list[list[int]], int, bool] | None = None
        # All padded rows are one call; a call for each is what segments cost beyond that.
        least = len(rows) * width * (1 + self.per_query_key * width / 2)
        # With the beginning read once, or each row by itself: long responses to a short prompt.
        for members in (pairs, [[row] for row in range(len(rows))]):
            groups = [group(rows, several) for several in members]
            sizes = [one.size for one in groups]
            if self.per_kernel_call is not None:
                cost = sum(sizes) + _segment_cost(
                    rows, groups, self.per_query_key, self.per_kernel_call
                )
                if cost < least:
                    best, least = (groups, [list(range(len(groups)))], sum(sizes), True), cost
            # Fewer rows are fuller, but wider, and attention pays for width.
            for bound, count in sorted(
                (self._rows_cost(count, max(max(sizes), -(-sum(sizes) // count))), count)
                for count in range(1, len(groups) + 1, max(len(groups) // _CHOICES, 1))
            ):
                if bound >= least:
                    break  # Perfectly even rows would cost so much, and so do all that follow.
                bins = balance_bins(sizes, count)
                capacity = max(sum(sizes[item] for item in one) for one in bins)
                cost = self._rows_cost(count, capacity)
                if cost < least:
                    best, least = (groups, bins, capacity, False), cost
        return None if best is None else _lay_out(rows, *best, starts, width, padding)

    def _rows_cost(self, count: int, width: int) -> float:
        return count * width * (1 + self.per_query_key * width)


def _segment_cost(
    rows: Sequence[Tokens], groups: Sequence[Group], pair: float, call: float
) -> float:
    cost = 0.0
    for start, end, first, last in (one for group in groups for one in group.segments(rows)):
        length = end - start
        cost += pair * length * (length / 2 + last - first) + call * (2 if first < last else 1)
    return cost


def _lay_out(
    rows: Sequence[Tokens], groups: Sequence[Group], bins: Sequence[Sequence[int]], capacity: int,
    in_segments: bool, starts: Sequence[int], width: int, padding: int,
) -> dict[str, torch.Tensor]:
    shape = (len(bins), capacity)
    ids = np.full(shape, padding, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    # Empty places see each other alone: a place that sees nothing would be NaN.
    blocks, parents = np.full(shape, -1, dtype=np.int32), np.full(shape, -1, dtype=np.int32)
    index = np.zeros((len(rows), width), dtype=np.int64)
    segments: list[tuple[int, ...]] = []
    for number, several in enumerate(bins):
        at, block = 0, 0
        for one in (groups[item] for item in several):
            first, root = at, block
            segments += [(number, *segment) for segment in one.segments(rows, at)]
            beginning = rows[one.rows[0]][: one.shared]
            parts: list[tuple[int | None, int, Tokens]] = [(None, 0, beginning)]
            parts += [(row, one.shared, rows[row][one.shared :]) for row in one.rows]
            for row, begin, tokens in parts:
                span = slice(at, at + len(tokens))
                ids[number, span] = tokens
                positions[number, span] = np.arange(begin, begin + len(tokens))
                blocks[number, span], parents[number, span] = block, root
                if row is not None:
                    places = np.r_[first : first + one.shared, span]
                    index[row, starts[row] : starts[row] + len(places)] = number * capacity + places
                at, block = at + len(tokens), block + 1
    arrays: dict[str, Any] = {
        "input_ids": ids, "position_ids": positions, "blocks": blocks, "parents": parents,
        "index": index,
    }
    if in_segments:
        arrays["segments"] = np.array(segments, dtype=np.int64)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
