"""A vocabulary head on the policy's own hidden states: guidance without a second model.

A head that was distilled with a frozen backbone, which is the policy itself, needs no pass of its
own. The policy's states are read once; its logits and the head's rewards are two products of them.

Shapes: B prefixes, T columns, V the policy's vocabulary, D hidden size.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewardsteer.data.template import stored_template
from rewardsteer.errors import CheckpointError
from rewardsteer.models.adapter_folder import check_base
from rewardsteer.models.backbone import backbone_of
from rewardsteer.models.checkpoint import ADAPTER_CONFIG, fingerprint, load_tokenizer, read_card
from rewardsteer.models.known_ids import KnownIds
from rewardsteer.models.logits import is_neutral
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.shared_backbone import SharedScorer


class PolicyStateScorer(Scorer):
    """A reward model whose backbone is the policy, unchanged.

    Args:
        policy: a causal LM in evaluation mode.
        source: where it was loaded from.
        folder: the reward model: a low-rank vocabulary head, trained on that policy's states.

    Raises:
        CheckpointError: the head was not trained on frozen states of a policy, or is damaged.
        MismatchError: it was trained on another policy.
    """

    def __init__(self, policy: Any, source: str, folder: Path) -> None:
        card = read_card(folder)
        if card.head.layers not in ("low_rank", "embedding") or not card.base_fingerprint:
            raise CheckpointError(
                f"Sharing the policy's weights needs a reward model kept as an adapter, or a "
                f"low-rank vocabulary head distilled on the policy's own states, and {folder} is a "
                "whole model; train with lora.merge=false or distil without base_model, or do not "
                "share."
            )
        check_base(card, folder, source)
        own = card.head.head_class.restore(policy, card.head, folder)
        super().__init__(
            RewardModel(policy, card.head, own), load_tokenizer(folder),
            stored_template(card.template), objective=card.objective, reading=card.reading,
            fingerprint=fingerprint(folder), name=str(folder),
        )
        self.policy = policy
        self._partner: _Rewards | None = None

    def open_policy(self) -> Any:
        """The policy's reader for a batch; the next `open` reads its states. None where the policy
        changes its logits after the output layer: it then reads apart."""
        if not is_neutral(self.policy.config):
            return None
        reader = _Logits(PrefixReader(backbone_of(self.policy)), self.policy)
        self._partner = _Rewards(reader)
        return reader

    def open(self) -> Any:
        """A fresh cache; see `open_policy`."""
        partner, self._partner = self._partner, None
        return super().open() if partner is None else partner

    @functools.cached_property
    def known(self) -> KnownIds:
        """All ids of the policy, whose embedding it is."""
        known = super().known
        known.size = len(self.policy.get_input_embeddings().weight)
        return known


class _Logits:
    """The policy's reader, which keeps the states behind its logits."""

    def __init__(self, reader: PrefixReader, policy: Any) -> None:
        self._reader, self._output = reader, policy.get_output_embeddings()
        self.seen = self.states = torch.empty(0, 0)

    @torch.no_grad()
    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``[B, V]``."""
        self.seen, self.states = prefix_ids, self._reader.step(prefix_ids, attention_mask)
        logits: Tensor = self._output(self.states)
        return logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class _Rewards:
    """The reward model's cache: states that the policy has read, at no cost."""

    def __init__(self, policy: _Logits) -> None:
        self._policy = policy

    def step(self, prefix_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States ``[B, D]`` of the prefixes that the policy was asked about last."""
        assert torch.equal(prefix_ids, self._policy.seen), "other prefixes than the policy's"
        return self._policy.states

    def select(self, rows: Sequence[int]) -> None:
        """Nothing to do: rows go with the policy's."""

    @property
    def forwards(self) -> list[int]:
        """Passes of each row: none."""
        return [0] * len(self._policy.forwards)

    @property
    def tokens(self) -> list[int]:
        """Tokens read of each row: none."""
        return self.forwards


def sharing_scorer(policy: Any, source: str, folder: Path) -> SharedScorer | PolicyStateScorer:
    """A reward model on the very weights of the policy: a kept adapter, or a head on its states."""
    kind = SharedScorer if (folder / ADAPTER_CONFIG).exists() else PolicyStateScorer
    return kind(policy, source, folder)
