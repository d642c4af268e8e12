"""FaRMA's own checkpoints (arXiv 2502.04517): causal language models whose logits are rewards."""

from typing import Any

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads import LANGUAGE_MODEL_HEAD
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.rewardsteer import load_checkpoint
from rewardsteer.models.scorer import Scorer


class FarmaKind(Kind):
    """A causal language model whose logits are the rewards of one-token extensions. Its folder is
    that of any language model, so it is never recognised: it has to be asked for."""

    summary = "causal language model whose logits are rewards (FaRMA)"

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> Scorer:
        if not folder.architecture.endswith("ForCausalLM"):
            raise CheckpointError(
                f"Expected a causal language model for the kind farma, got "
                f"{folder.architecture or 'no architecture'} in {folder.name}."
            )
        card = CheckpointCard(head=HeadConfig(kind=LANGUAGE_MODEL_HEAD), base_model=folder.name)
        return load_checkpoint(folder, card=card, template=template, **options)
