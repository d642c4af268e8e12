"""A key/value cache that is written in place and whose rows can be exchanged.

The library's cache copies all that it holds to add one column, which at batch 8 costs a small model
more than its arithmetic. Here every layer keeps room behind its last column and fills it. Rows are
aligned at the right edge: a new one is written into the place of one that left, without touching
the others, and columns on the left that no row needs any more are dropped without a copy.

Shapes: B rows, H key/value heads, W columns, D numbers per head.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

# Columns of room behind the last one: at least so many, or this part of the width.
_ROOM, _PART = 64, 8


def room(width: int) -> int:
    """Columns that are held free behind so many."""
    return max(_ROOM, width // _PART)


class GrowingLayer(DynamicLayer):
    """Keys and values ``[B, H, W, D]`` of one layer, as views of larger tensors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._stores: tuple[Tensor, ...] = ()
        self._rows = self._left = self._right = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add columns on the right; all keys and values."""
        right = self._right + key_states.shape[2]
        if not self._stores or right > self._stores[0].shape[2]:
            self._rows = len(key_states)
            self._move((key_states, value_states), behind=key_states.shape[2])
            right = self._right + key_states.shape[2]
        for store, states in zip(self._stores, (key_states, value_states), strict=True):
            store[: self._rows, :, self._right : right] = states
        self._show(self._left, right)
        return self.keys, self.values

    def cut(self, *, left: int = 0, right: int = 0) -> None:
        """Drop columns."""
        self._show(self._left + left, self._right - right)

    def arrange(self, count: int, places: Tensor, origins: Tensor, new: Tensor) -> None:
        """Make ``count`` rows of those there are: what is at the origins goes to the places, zeros
        to the new ones, and the others stay."""
        if count > len(self._stores[0]):
            self._move(self._stores, rows=count)
        for store in self._stores:
            held = store[:, :, self._left : self._right]
            if len(places):
                held[places] = held[origins]
            # Whatever was there may be no number, and a mask does not hide that.
            held[new] = 0
        self._rows = count
        self._show(self._left, self._right)

    def place(self, rows: Tensor, other: "GrowingLayer") -> None:
        """Write the rows of another layer into places of this one, aligned at the right edge."""
        width = other.keys.shape[2]
        missing = width - (self._right - self._left)
        if missing > 0:
            self._move(self._stores, before=missing)
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            mine[rows, :, mine.shape[2] - width :] = theirs

    def taken(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Copies of keys and values ``[R, H, C, D]`` of some rows ``[R]``, of each its own columns
        ``[R, C]``."""
        # Indices with a slice between them come out in front.
        keys, values = (
            states[rows[:, None], :, columns].transpose(1, 2) for states in (self.keys, self.values)
        )
        return keys, values

    def shift(self, rows: Tensor, columns: Tensor) -> None:
        """Give some rows ``[R]`` other columns ``[R, W]`` of their own, in place."""
        self.keys[rows], self.values[rows] = self.taken(rows, columns)

    def keep_one(self, columns: Tensor, among: int) -> None:
        """Of each row's last ``among`` columns keep one, given by its place ``[B]`` among them."""
        first = self._right - self._left - among
        rows = torch.arange(len(columns), device=columns.device)
        for states in (self.keys, self.values):
            states[:, :, first] = states[rows, :, first + columns]
        self.cut(right=among - 1)

    def _move(
        self, like: tuple[Tensor, ...], *, rows: int = 0, before: int = 0, behind: int = 0
    ) -> None:
        """Move to larger stores, with columns of zeros before and room behind."""
        end = before + self._right - self._left
        width = end + behind
        stores = []
        for index, tensor in enumerate(like):
            shape = [max(rows, len(tensor)), *tensor.shape[1:]]
            shape[2] = width + room(width)
            store = tensor.new_empty(shape)
            store[:, :, :before] = 0
            if self._stores:
                held = self._stores[index][: self._rows, :, self._left : self._right]
                store[: self._rows, :, before:end] = held
            stores.append(store)
        self._stores = tuple(stores)
        self.dtype, self.device, self.is_initialized = stores[0].dtype, stores[0].device, True
        self._show(0, end)

    def _show(self, left: int, right: int) -> None:
        self._left, self._right = left, right
        self.keys, self.values = (store[: self._rows, :, left:right] for store in self._stores)


class GrowingCache(DynamicCache):
    """A cache of `GrowingLayer`, one for each layer of a model.

    It is made without the model's configuration: so every layer keeps all it has read and those
    with sliding windows can be cut back too; their masks still hide what lies outside the window.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer_class_to_replicate = GrowingLayer

    def cut(self, *, left: int = 0, right: int = 0) -> None:
        """Drop columns."""
        if left or right:
            for layer in self.layers:
                layer.cut(left=left, right=right)

    def select(self, rows: Tensor) -> None:
        """Keep, reorder or repeat rows ``[B]``; below 0 is the place of a new one."""
        here = torch.arange(len(rows))
        moved = (rows >= 0) & (rows != here)
        indices = here[moved], rows[moved], here[rows < 0]
        for layer in self.layers:
            layer.arrange(len(rows), *(index.to(layer.device) for index in indices))

    def place(self, rows: Tensor, other: "GrowingCache") -> None:
        """Write the rows of another cache into places of this one."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.place(rows.to(mine.device), theirs)

    def part(self, rows: Tensor, columns: Tensor) -> "GrowingCache":
        """A cache of its own of some rows ``[R]``, of each its own columns ``[R, C]``."""
        part = GrowingCache()
        for index, layer in enumerate(self.layers):
            keys, values = layer.taken(rows.to(layer.device), columns.to(layer.device))
            part.update(keys, values, index)
        return part

    def shift(self, rows: Tensor, columns: Tensor) -> None:
        """Give some rows ``[R]`` other columns ``[R, W]`` of their own, in place."""
        for layer in self.layers:
            layer.shift(rows.to(layer.device), columns.to(layer.device))

    def keep_one(self, columns: Tensor, among: int) -> None:
        """Of each row's last ``among`` columns keep one, given by its place ``[B]`` among them."""
        for layer in self.layers:
            layer.keep_one(columns.to(layer.device), among)
