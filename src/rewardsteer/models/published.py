"""Checkpoints of published code as reward models' folders: FaRMA's causal language models, and
backbones with a head of their own (goal-conditioned-rm, OpenRLHF, …)."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError, MismatchError
from rewardsteer.models.checkpoint import CARD, CheckpointCard, ensure_padding_token, read_card
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.projection import open_vocabulary
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.kinds.folder import describe_folder
from rewardsteer.models.kinds.recognition import recognise
from rewardsteer.models.kinds.stacks import find_heads
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.quiet import quiet_calls


@quiet_calls
def import_checkpoint(
    source: Path, out: Path, template: Template | None = None, *, kind: str | None = None,
    folded: bool = False, **options: Any,
) -> CheckpointCard:
    """Write a published checkpoint as a reward model's folder.

    Args:
        source: the published folder, with weights as safetensors.
        out: the folder to make; it must not exist.
        template: how the published code wrote prompts and responses; None: ``auto``.
        kind: of `rewardsteer.models.kinds.KINDS`; None: recognised, and a causal language model is
            taken as FaRMA's.
        folded: put a full vocabulary head in place of a low-rank one.
        options: of the kind, such as the ``attribute`` that becomes the reward.

    Returns:
        the card.

    Raises:
        CheckpointError: the folder holds no such checkpoint, or its weights are no safetensors.
        ConfigError: an option has a wrong value, or one is missing.
        MismatchError: the head to be folded is no low-rank one.
    """
    folder = describe_folder(source, source)
    if kind is None:
        language = folder.architecture.endswith("ForCausalLM") and not find_heads(folder)
        kind = "farma" if language and not folder.has_card else recognise(folder)
    scorer = load_scorer(source, kind=kind, device="cpu", template=template, **options)
    if not isinstance(scorer, Scorer):
        raise CheckpointError(
            f"The reward model {source} ({kind}) scores whole texts in a way that a folder of ours "
            "does not describe; load it with kind= (--kind) instead."
        )
    if folded:
        scorer.reward_model = fold(scorer.reward_model)
    return save_scorer(scorer, out)


def save_scorer(scorer: Scorer, out: Path) -> CheckpointCard:
    """Write a reward model as a folder of ours; returns its card, that of its folder if there is
    one."""
    model, source = scorer.reward_model, Path(scorer.name)
    if (source / CARD).exists():
        card = read_card(source).model_copy(update={"head": model.head_config})
        model.save_pretrained(out, scorer.tokenizer, card)
        return card
    own = model.value_head
    if own is not None and not all(isinstance(one, nn.Linear | nn.ReLU) for one in own.children()):
        raise CheckpointError(
            f"The head of {scorer.name} ({scorer.kind}) is more than linear layers with ReLU, "
            "which a folder of ours cannot hold; load the published folder instead."
        )
    if scorer.unread_id is None and not scorer.gives_next_token:
        # Plain transformers skips the padding token: it must not be the end of a text.
        ensure_padding_token(scorer.tokenizer, model.carrier)
    card = CheckpointCard(
        head=model.head_config, base_model=scorer.name, objective=scorer.objective,
        template=scorer.template.model_dump(mode="json"),
    )
    model.save_pretrained(out, scorer.tokenizer, card)
    return card


@torch.no_grad()
def fold(model: RewardModel) -> RewardModel:
    """The reward model with a full vocabulary head in place of a low-rank one; the backbone is the
    given one's, changed in place.

    Rewards are the same up to rounding: of the carrier's type where that is bfloat16.

    Raises:
        MismatchError: its head is not such a one.
    """
    own: Any = model.value_head
    if own is None or not model.head.gives_next_token:
        raise MismatchError(
            "Expected a vocabulary head with layers=low_rank or embedding to fold; got a "
            f"{model.head_config.kind} head with layers={model.head_config.layers}."
        )
    carrier = model.carrier
    generated = carrier.get_output_embeddings().generated
    weight = own.folded(carrier.get_output_embeddings())
    config = HeadConfig(kind=model.head_config.kind, init="zeros")
    open_vocabulary(carrier, config)
    layer = carrier.get_output_embeddings()
    layer.weight.copy_(weight)
    layer.generated = generated
    return RewardModel(carrier, config)
