"""Batches of rows: nothing lost, nothing over the limits, no room left unused."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rewardsteer.models.batching import batches

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
