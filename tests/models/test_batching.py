"""Batches of rows: nothing lost, nothing over the limits, no room left unused."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.models.batching import batches, left_pad, right_pad

lengths_of_rows = st.lists(st.integers(1, 50), max_size=30)
limits = st.one_of(st.none(), st.integers(1, 60))


def padded(lengths, batch):
    return len(batch) * max(lengths[row] for row in batch)


@given(lengths_of_rows, limits, limits)
def test_every_row_once_and_no_empty_batch(lengths, rows, tokens):
    made = list(batches(lengths, rows=rows, tokens=tokens))
    assert all(made)
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))


@given(lengths_of_rows, limits, limits)
def test_longest_first_and_ties_in_order(lengths, rows, tokens):
    order = [row for batch in batches(lengths, rows=rows, tokens=tokens) for row in batch]
    keys = [(-lengths[row], row) for row in order]
    assert keys == sorted(keys)


@given(lengths_of_rows, limits, limits)
def test_limits_are_kept_and_a_longer_row_stands_alone(lengths, rows, tokens):
    for batch in batches(lengths, rows=rows, tokens=tokens):
        if rows is not None:
            assert len(batch) <= rows
        if tokens is not None and padded(lengths, batch) > tokens:
            assert len(batch) == 1
            assert lengths[batch[0]] > tokens


@given(lengths_of_rows, limits, limits)
def test_a_batch_ends_only_when_the_next_row_does_not_fit(lengths, rows, tokens):
    made = list(batches(lengths, rows=rows, tokens=tokens))
    for batch, following in pairwise(made):
        full = rows is not None and len(batch) == rows
        more = [*batch, following[0]]
        assert full or (tokens is not None and padded(lengths, more) > tokens)


def test_worked_example():
    lengths = [3, 9, 4, 4, 20]
    assert list(batches(lengths, rows=None, tokens=12)) == [[4], [1], [2, 3, 0]]
    assert list(batches(lengths, rows=2, tokens=None)) == [[4, 1], [2, 3], [0]]
    assert list(batches(lengths, rows=None, tokens=None)) == [[4, 1, 2, 3, 0]]
    assert list(batches([], rows=None, tokens=None)) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60_000), min_size=0, max_size=7), min_size=1, max_size=5))
def test_padding_equals_rows_written_out(rows):
    width = max(map(len, rows))
    missing = [[0] * (width - len(row)) for row in rows]
    ones = [[1] * len(row) for row in rows]
    for pad, beside in ((right_pad, lambda row, more: row + more),
                        (left_pad, lambda row, more: more + row)):
        ids, mask = pad(rows)
        assert ids.tolist() == [beside(*pair) for pair in zip(rows, missing, strict=True)]
        assert mask.tolist() == [beside(*pair) for pair in zip(ones, missing, strict=True)]
        assert ids.dtype == mask.dtype == torch.long
