"""The cache that is written in place against plain tensors that are copied at every step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.models.preallocated_cache import PreallocatedCache

LAYERS, HEADS, SIZE = 2, 3, 4


def states(generator, rows, columns, size=SIZE):
    """Keys and values of all layers; values are of another size, as in some models."""
    return [
        tuple(torch.randn(rows, HEADS, columns, d, generator=generator) for d in (size, size + 1))
        for _ in range(LAYERS)
    ]


def add(cache, new):
    for layer, (keys, values) in enumerate(new):
        cache.update(keys, values, layer)


def made(new):
    cache = PreallocatedCache()
    add(cache, new)
    return cache


class Plain:
    """The same operations, each of which copies everything."""

    def __init__(self, new):
        self.held = [list(pair) for pair in new]

    def each(self, change):
        self.held = [
            [change(states, index, layer) for index, states in enumerate(pair)]
            for layer, pair in enumerate(self.held)
        ]

    def update(self, new):
        self.each(lambda s, index, layer: torch.cat([s, new[layer][index]], dim=2))

    def cut(self, left, right):
        self.each(lambda s, *_: s[:, :, left : s.shape[2] - right])

    def select(self, rows):
        def change(s, *_):
            return torch.stack([s[row] if row >= 0 else torch.zeros_like(s[0]) for row in rows])

        self.each(change)

    def place(self, rows, new):
        def change(s, index, layer):
            theirs = new[layer][index]
            missing = max(0, theirs.shape[2] - s.shape[2])
            s = torch.cat([s.new_zeros(*s.shape[:2], missing, s.shape[3]), s], dim=2)
            for place, row in zip(rows, theirs, strict=True):
                s[place, :, s.shape[2] - theirs.shape[2] :] = row
            return s

        self.each(change)

    def keep_one(self, columns, among):
        def change(s, *_):
            first = s.shape[2] - among
            one = torch.stack([row[:, first + c] for row, c in zip(s, columns, strict=True)])
            return torch.cat([s[:, :, :first], one[:, :, None]], dim=2)

        self.each(change)


@pytest.fixture(scope="module", autouse=True)
def poisoned_memory():
    """Fresh memory holds no numbers, so that any use of it shows."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        torch.Tensor, "new_empty",
        lambda self, shape: torch.full(tuple(shape), float("nan"), dtype=self.dtype),
    )
    yield
    patch.undo()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_sequence_of_operations_equals_plain_copies(data):
    generator = torch.Generator().manual_seed(0)
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    new = states(generator, draw(1, 4), draw(1, 90))
    cache, plain = made(new), Plain(new)
    for _ in range(draw(1, 8)):
        rows, _, width, _ = plain.held[0][0].shape
        match draw(0, 4):
            case 0:
                new = states(generator, rows, draw(1, 40))
                add(cache, new)
                plain.update(new)
            case 1:
                left = draw(0, width - 1)
                right = draw(0, width - 1 - left)
                cache.crop_columns(left=left, right=right)
                plain.cut(left, right)
            case 2:
                chosen = data.draw(st.lists(st.integers(-1, rows - 1), min_size=1, max_size=6))
                cache.select(torch.tensor(chosen))
                plain.select(chosen)
            case 3:
                places = data.draw(st.permutations(range(rows)))[: draw(1, rows)]
                new = states(generator, len(places), draw(1, 150))
                cache.place(torch.tensor(places), made(new))
                plain.place(places, new)
            case 4:
                among = draw(1, width)
                columns = [draw(0, among - 1) for _ in range(rows)]
                cache.keep_one(torch.tensor(columns), among)
                plain.keep_one(columns, among)
        assert cache.get_seq_length() == plain.held[0][0].shape[2]
        for layer, (keys, values) in zip(cache.layers, plain.held, strict=True):
            assert torch.equal(layer.keys, keys)
            assert torch.equal(layer.values, values)


def test_columns_are_written_in_place():
    generator = torch.Generator().manual_seed(0)
    cache = made(states(generator, 2, 400))
    where = cache.layers[0].keys.data_ptr()
    for _ in range(50):
        add(cache, states(generator, 2, 1))
    assert cache.layers[0].keys.data_ptr() == where
    for _ in range(100):
        add(cache, states(generator, 2, 1))
    assert cache.get_seq_length() == 550


def test_other_rows_are_not_copied():
    generator = torch.Generator().manual_seed(0)
    cache = made(states(generator, 5, 30))
    where = cache.layers[0].keys.data_ptr()
    cache.select(torch.tensor([0, -1, 4, 3]))
    cache.place(torch.tensor([1]), made(states(generator, 1, 20)))
    cache.select(torch.tensor([0, 1, 2, 3, -1]))
    assert cache.layers[0].keys.data_ptr() == where
