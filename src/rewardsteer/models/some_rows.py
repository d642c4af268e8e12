"""Some rows of a reader's cache, asked about while the others are left as they are.

What a row gained since it was last read, one token or many, is read in one forward pass. The pass
is over copies of the rows' caches, which are written back.

Shapes: R rows, T columns of given prefixes, K candidates, X hidden or vocabulary size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class SomeRows:
    """Answers as a `rewardsteer.models.prefix_reader.PrefixReader` of these rows would.

    Attributes:
        reader: of all rows.
        rows: their numbers.
        places: rows of the cache.
    """

    reader: Any
    rows: Sequence[int]
    places: int

    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Answers ``[R, X]`` at the last position of every prefix ``[R, T]``."""
        answers: Tensor = self.reader.step_rows(
            self.rows, prefix_ids, attention_mask, places=self.places
        )
        return answers

    def score_candidates(
        self, prefix_ids: Tensor, attention_mask: Tensor, candidate_ids: Tensor
    ) -> Tensor:
        """Answers ``[R, K, X]`` after every prefix∘candidate."""
        answers: Tensor = self.reader.score_rows(
            self.rows, prefix_ids, attention_mask, candidate_ids, places=self.places
        )
        return answers

    def step_rows(self, rows: Sequence[int], *prefixes: Tensor, places: int) -> Tensor:
        """`PrefixReader.step_rows` of some of these rows."""
        own = [self.rows[row] for row in rows]
        answers: Tensor = self.reader.step_rows(own, *prefixes, places=self.places)
        return answers

    def peek(self, row: int, *prefixes: Tensor, places: int) -> Tensor:
        """`PrefixReader.peek` of one of these rows."""
        answers: Tensor = self.reader.peek(self.rows[row], *prefixes, places=self.places)
        return answers
