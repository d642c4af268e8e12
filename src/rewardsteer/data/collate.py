"""Collators from rows of token ids to padded tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rewardsteer.tensors import Candidates, Packing, PairBatch

Row = Mapping[str, Any]
# The lists of lengths that a row may have.
Prefixes = Literal["chosen_lengths", "pair_lengths", "step_lengths", "candidate_lengths", "all"]


class Packer(Protocol):
    """Puts several rows into one; see `rewardsteer.models.packing.plan.PackingCosts`."""

    def pack(
        self, rows: Sequence[Sequence[int]], pairs: Sequence[Sequence[int]], *,
        starts: Sequence[int], width: int, padding: int,
    ) -> dict[str, Tensor] | None:
        """The fields of a `rewardsteer.tensors.Packing`, or None where padding is cheaper."""
        ...


@dataclass
class PairCollator:
    """Collates rows of the full or partial set into the fields of a `PairBatch`.

    Attributes:
        pad_token_id: fills the padding; attention is masked there, so any id will do.
        padding_side: ``right`` or ``left``.
        paired: put the rejected rows below the chosen ones; False leaves them out.
        prefixes: which of a row's length lists marks the prefixes: ``chosen_lengths`` (maximum
            constraint), ``pair_lengths`` (PARGS), ``step_lengths`` (labelled steps of the chosen
            response) or ``candidate_lengths`` (prefixes with a teacher's candidates). ``all`` marks
            every response token of a `ResponseCollator`; None marks none.
        packing: packs batches where that saves time; None pads them.
    """

    pad_token_id: int
    padding_side: Literal["right", "left"] = "right"
    paired: bool = True
    prefixes: Prefixes | None = None
    packing: Packer | None = None

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The fields of a `PairBatch` by name, ready for `to_batch`. Without rows, the fields of a
        dummy batch."""
        is_dummy = not rows
        if is_dummy:
            rows = [self._dummy_row()]
        sequences = self._sequences(rows)
        whole = [prompt + response for prompt, response, _ in sequences]
        width = max(len(ids) for ids in whole)
        starts = [0 if self.padding_side == "right" else width - len(ids) for ids in whole]
        shape = (len(sequences), width)
        input_ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        response_mask, prefix_mask = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        for index, (prompt, _, lengths) in enumerate(sequences):
            start, end = starts[index], starts[index] + len(whole[index])
            input_ids[index, start:end] = whole[index]
            attention_mask[index, start:end] = 1
            response_mask[index, start + len(prompt) : end] = True
            prefix_mask[index, [start + len(prompt) + length - 1 for length in lengths]] = True
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(attention_mask),
            "response_mask": torch.from_numpy(response_mask),
            "prefix_mask": torch.from_numpy(prefix_mask),
            "margin": torch.tensor([float(row.get("margin") or 0.0) for row in rows]),
            "row_ids": [str(row.get("id", "")) for row in rows],
            "extras": _extras(rows),
            "step_labels": self._step_labels(rows),
            "candidates": self._candidates(rows),
            "paired": self.paired,
            "right_padded": self.padding_side == "right",
            "packing": None if is_dummy else self._pack(whole, starts, width, rows),
            "is_dummy": is_dummy,
            **self._numbers(rows),
        }

    def _sequences(self, rows: Sequence[Row]) -> list[tuple[list[int], list[int], list[int]]]:
        """Prompt, response and the lengths of its marked prefixes, of each row of the batch."""
        sides = ["chosen_ids", "rejected_ids"] if self.paired else ["chosen_ids"]
        return [
            (list(row["prompt_ids"]), list(row[side]), self._lengths(row, side))
            for side in sides
            for row in rows
        ]

    def _numbers(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Further fields of the batch."""
        return {}

    def _members(self, rows: Sequence[Row]) -> list[list[int]]:
        """For each prompt, the indices of its rows in the batch."""
        # Row i and row i + B are the two responses to a prompt.
        sides = 2 if self.paired else 1
        return [list(range(row, sides * len(rows), len(rows))) for row in range(len(rows))]

    def _dummy_row(self) -> Row:
        ids = [self.pad_token_id]
        return {"prompt_ids": ids, "chosen_ids": ids, "rejected_ids": ids,
                "chosen_lengths": [], "pair_lengths": [], "step_lengths": [], "step_labels": [],
                "candidate_lengths": [], **{name: [] for name in Candidates._fields}}

    def _pack(
        self, whole: list[list[int]], starts: list[int], width: int, rows: Sequence[Row]
    ) -> dict[str, Tensor] | None:
        if self.packing is None:
            return None
        return self.packing.pack(
            whole, self._members(rows), starts=starts, width=width, padding=self.pad_token_id
        )

    def _lengths(self, row: Row, side: str) -> list[int]:
        if self.prefixes is None or (self.prefixes != "pair_lengths" and side != "chosen_ids"):
            return []
        return list(row[self.prefixes])

    def _candidates(self, rows: Sequence[Row]) -> dict[str, Tensor] | None:
        """The fields of `Candidates`; for a dummy batch, without prefixes."""
        if self.prefixes != "candidate_lengths":
            return None
        found = {}
        for name in Candidates._fields:
            kind = torch.float if name in ("log_policy", "teacher") else torch.long
            values = [torch.as_tensor(row[name], dtype=kind) for row in rows if len(row[name])]
            empty = torch.zeros((0,) if name == "drawn" else (0, 1), dtype=kind)
            found[name] = torch.cat(values) if values else empty
        return found

    def _step_labels(self, rows: Sequence[Row]) -> Tensor:
        if self.prefixes != "step_lengths":
            return torch.empty(0)
        return torch.tensor([float(label) for row in rows for label in row["step_labels"]])


def _extras(rows: Sequence[Row]) -> dict[str, Tensor]:
    found = [row.get("extras") or {} for row in rows]
    names = sorted({name for extras in found for name in extras})
    numbers = {name: [extras.get(name) for extras in found] for name in names}
    return {
        name: torch.tensor([float("nan") if value is None else value for value in values])
        for name, values in numbers.items()
    }


def to_batch(inputs: Mapping[str, Any]) -> PairBatch:
    """A collator's output as a `PairBatch`, on whichever device its tensors are."""
    fields = {name: inputs[name] for name in PairBatch.__dataclass_fields__ if name in inputs}
    if fields.get("candidates") is not None:
        fields["candidates"] = Candidates(**fields["candidates"])
    if fields["packing"] is not None:
        fields["packing"] = Packing(**fields["packing"])
    return PairBatch(**fields)


@dataclass
class SftCollator:
    """Collates rows of the SFT set into ``input_ids``, ``attention_mask``, ``labels`` ``[B, T]``.

    Labels are -100 on the prompt and on padding, so only the response is learned.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """A batch, padded on the right."""
        width = max(len(row["prompt_ids"]) + len(row["label_ids"]) for row in rows)
        input_ids = torch.full((len(rows), width), self.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        labels = torch.full_like(input_ids, -100)
        for index, row in enumerate(rows):
            prompt, label = list(row["prompt_ids"]), list(row["label_ids"])
            total = len(prompt) + len(label)
            input_ids[index, :total] = torch.tensor(prompt + label)
            attention_mask[index, :total] = 1
            labels[index, len(prompt) : total] = torch.tensor(label)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
