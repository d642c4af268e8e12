"""Reward models on the policy's own weights: one forward pass serves both.

Shapes: B prefixes, T columns, V the policy's vocabulary, D hidden size.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rewardsteer.data.template import stored_template
from rewardsteer.models.checkpoint import CheckpointCard, fingerprint, load_tokenizer
from rewardsteer.models.known_ids import KnownIds
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.prefix_state import EMPTY_ROW
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer


class OnPolicyScorer(Scorer):
    """A reward model that reads with the weights of the policy."""

    def __init__(
        self, policy: Any, model: RewardModel, folder: Path, card: CheckpointCard
    ) -> None:
        super().__init__(
            model, load_tokenizer(folder), stored_template(card.template),
            objective=card.objective, reading=card.reading, fingerprint=fingerprint(folder),
            name=str(folder),
        )
        self.policy = policy
        self._partner: _RewardSide | None = None

    def read_together(self, reader: PrefixReader, offset: int | None = None) -> "_PolicySide":
        """The policy's side of a shared pass; the next `open` is the reward model's.

        Args:
            reader: of the backbone.
            offset: with it, the reader reads every prefix twice; the second time its ids are higher
                by so much, and the states are the reward model's. None: both models have the same
                states.
        """
        shared = _SharedPass(reader, offset)
        self._partner = _RewardSide(shared)
        return _PolicySide(shared, self.policy.get_output_embeddings())

    def open(self) -> Any:
        """A fresh cache; see `read_together`."""
        partner, self._partner = self._partner, None
        return super().open() if partner is None else partner

    @functools.cached_property
    def known(self) -> KnownIds:
        """All ids of the policy, whose embedding it is."""
        known = super().known
        known.size = len(self.policy.get_input_embeddings().weight)
        return known


class _SharedPass:
    """States ``[B, D]`` of the prefixes that were read last, for the policy and for the reward
    model; arguments as of `OnPolicyScorer.read_together`."""

    def __init__(self, reader: PrefixReader, offset: int | None) -> None:
        self.reader, self.offset = reader, offset
        self.seen = self.of_policy = self.of_reward = torch.empty(0, 0)

    def step(self, ids: Tensor, mask: Tensor) -> None:
        self.seen = ids
        if self.offset is None:
            self.of_policy = self.of_reward = self.reader.step(ids, mask)
        else:
            states = self.reader.step(torch.cat([ids, ids + self.offset]), torch.cat([mask, mask]))
            self.of_policy, self.of_reward = states[: len(ids)], states[len(ids) :]

    def select(self, rows: Sequence[int]) -> None:
        if self.offset is not None:
            count = len(self.reader.forwards) // 2
            rows = [*rows, *(EMPTY_ROW if row < 0 else row + count for row in rows)]
        self.reader.select(rows)

    def part(self, counts: list[int], *, rewarded: bool) -> list[int]:
        """Those of a reader's counts that are the policy's or the reward model's, which adds
        nothing where the states are the policy's."""
        if self.offset is None:
            return [0] * len(counts) if rewarded else counts
        middle = len(counts) // 2
        return counts[middle:] if rewarded else counts[:middle]


class _Side:
    """What one of the two models' caches costs."""

    rewarded: ClassVar[bool]

    def __init__(self, shared: _SharedPass) -> None:
        self._shared = shared

    @property
    def forwards(self) -> list[int]:
        return self._shared.part(self._shared.reader.forwards, rewarded=self.rewarded)

    @property
    def tokens(self) -> list[int]:
        return self._shared.part(self._shared.reader.tokens, rewarded=self.rewarded)


class _PolicySide(_Side):
    """The policy's reader: the next-token logits of all prefixes."""

    rewarded = False

    def __init__(self, shared: _SharedPass, output: nn.Module) -> None:
        super().__init__(shared)
        self._output = output

    @torch.no_grad()
    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``[B, V]``."""
        self._shared.step(prefix_ids, attention_mask)
        logits: Tensor = self._output(self._shared.of_policy)
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Keep, reorder or repeat rows, of the other side too."""
        self._shared.select(rows)

    def __getattr__(self, name: str) -> Any:
        """What else a `PrefixReader` does, where its rows are the policy's."""
        if name.startswith("_") or self._shared.offset is not None:
            raise AttributeError(name)
        return getattr(self._shared.reader, name)


class _RewardSide(_Side):
    """The reward model's cache: it was read with the policy."""

    rewarded = True

    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States ``[B, D]`` of the prefixes that the policy was asked about last."""
        assert torch.equal(prefix_ids, self._shared.seen), "other prefixes than the policy's"
        return self._shared.of_reward

    def select(self, rows: Sequence[int]) -> None:
        """Nothing to do: rows go with the policy's."""
