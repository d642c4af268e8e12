"""A collator of responses that have numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rewardsteer.data.collate import PairCollator, Row


@dataclass
class ResponseCollator(PairCollator):
    """Collates rows of the set ``responses`` into the fields of a `PairBatch`: the responses to a
    prompt are consecutive rows, each with its numbers. All prefixes are marked, or none."""

    paired: bool = False

    def _dummy_row(self) -> Row:
        ids = [self.pad_token_id]
        return {"prompt_ids": ids, "response_ids": [ids]}

    def _sequences(self, rows: Sequence[Row]) -> list[tuple[list[int], list[int], list[int]]]:
        return [
            (
                list(row["prompt_ids"]), list(response),
                list(range(1, len(response) + 1)) if self.prefixes == "all" else [],
            )
            for row in rows for response in row["response_ids"]
        ]

    def _numbers(self, rows: Sequence[Row]) -> dict[str, Any]:
        counts = torch.tensor([len(row["response_ids"]) for row in rows])
        names = sorted({name for row in rows for name in row.get("numbers") or {}})
        missing = [[None] * int(count) for count in counts]
        return {
            "group_ids": torch.arange(len(rows)).repeat_interleave(counts),
            "numbers": {
                name: torch.tensor([
                    float("nan") if value is None else float(value)
                    for row, absent in zip(rows, missing, strict=True)
                    for value in (row.get("numbers") or {}).get(name) or absent
                ])
                for name in names
            },
        }

    def _members(self, rows: Sequence[Row]) -> list[list[int]]:
        found, begin = [], 0
        for row in rows:
            found.append(list(range(begin, begin + len(row["response_ids"]))))
            begin += len(row["response_ids"])
        return found
