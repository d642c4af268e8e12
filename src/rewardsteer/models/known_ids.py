"""Replacements for token ids that a policy's tokenizer has and the reward model's lacks.

Two tokenizers may differ in special tokens that only one of them has (`models.compatibility`). A
token that only the policy has gets no embedding in the reward model, or an untrained one. It is
replaced by the reward tokenizer's unknown token, else its padding, else its end-of-text, else the
token 0.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def id_count(tokenizer: Any) -> int:
    """The number of ids from 0 to a tokenizer's last one. Some tokenizers leave ids out, so that it
    exceeds their number of tokens."""
    return int(max(tokenizer.get_vocab().values(), default=-1)) + 1


class KnownIds:
    """The token that a reward model gets for every token id.

    Attributes:
        size: ids from here on are unknown.
        stand_in: the token that replaces them.
    """

    def __init__(self, tokenizer: Any, rows: int) -> None:
        self.size = min(id_count(tokenizer), rows)
        named = (tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
        fitting = [token for token in named if token is not None and token < self.size]
        self.stand_in = fitting[0] if fitting else 0

    def of(self, ids: Tensor) -> Tensor:
        """Ids of any shape, unknown ones replaced."""
        strange = ids >= self.size
        return ids.masked_fill(strange, self.stand_in) if bool(strange.any()) else ids

    def of_rows(self, rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Rows of ids, unknown ones replaced."""
        return [
            row if max(row, default=0) < self.size
            else [token if token < self.size else self.stand_in for token in row]
            for row in rows
        ]
