"""A vocabulary head on the policy's own hidden states: guidance without a second model.

A head that was distilled with a frozen backbone, which is the policy itself, needs no forward pass
of its own: the policy's logits and the head's rewards are two products of the same states.
"""

from pathlib import Path
from typing import Any

from rewardsteer.errors import CheckpointError
from rewardsteer.models.adapter_folder import check_base
from rewardsteer.models.backbone import backbone_of
from rewardsteer.models.checkpoint import ADAPTER_CONFIG, read_card
from rewardsteer.models.logits import is_neutral
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.shared_backbone import SharedScorer
from rewardsteer.models.shared_pass import OnPolicyScorer


class PolicyStateScorer(OnPolicyScorer):
    """A reward model whose backbone is the policy, unchanged.

    Args:
        policy: a causal LM in evaluation mode.
        source: folder or hub name of the policy.
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
        super().__init__(policy, RewardModel(policy, card.head, own), folder, card)

    def open_policy(self) -> Any:
        """The policy's reader for a batch; the next `open` reads its states. None where the policy
        changes its logits after the output layer: it then reads apart."""
        if not is_neutral(self.policy.config):
            return None
        return self.read_together(PrefixReader(backbone_of(self.policy)))


def sharing_scorer(policy: Any, source: str, folder: Path) -> SharedScorer | PolicyStateScorer:
    """A reward model on the very weights of the policy: a kept adapter, or a head on its states."""
    kind = SharedScorer if (folder / ADAPTER_CONFIG).exists() else PolicyStateScorer
    return kind(policy, source, folder)
