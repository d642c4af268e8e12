"""The model that training starts from: a language model, a reward model, or an adapter of one."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from rewardsteer.data.template import Template, stored_template
from rewardsteer.errors import CheckpointError
from rewardsteer.models.backbone import backbone_of
from rewardsteer.models.capabilities import is_causal
from rewardsteer.models.checkpoint import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CARD,
    CheckpointCard,
    read_card,
)
from rewardsteer.models.heads import LANGUAGE_MODEL_HEAD
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.loading import load_base, outline, refuse_absent
from rewardsteer.models.places import check_place
from rewardsteer.models.sharding import is_zero3_sharded
from rewardsteer.outputs import read_json

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where weights come from.

    Attributes:
        source: folder or hub name of whole weights.
        adapter: folder of a LoRA adapter that belongs on them; None without one.
        card: of the model, where it is a reward model.
    """

    source: str
    adapter: Path | None = None
    card: CheckpointCard | None = None


def find_start(source: str | Path) -> Start:
    """The weights, adapter and card that a folder or hub name holds.

    Raises:
        CheckpointError: no such place, or an adapter that names no base model.
    """
    check_place(source)
    folder = Path(source)
    card = read_card(folder) if (folder / CARD).exists() else None
    if not (folder / ADAPTER_CONFIG).exists():
        return Start(str(source), None, card)
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise CheckpointError(
            f"Expected the adapter's weights {ADAPTER_WEIGHTS} in {folder}; other forms are not "
            "read. Save it again with peft's save_pretrained."
        )
    return Start(card.base_model if card else adapter_base(folder), folder, card)


def trained_template(source: str | Path) -> Template | None:
    """The response template that a trained reward model reads; None for any other model.

    Raises:
        CheckpointError: no such place, or a damaged card.
    """
    card = find_start(source).card
    return stored_template(card.template) if card is not None and card.template else None


def adapter_base(folder: Path) -> str:
    """The base model that an adapter folder names.

    Raises:
        CheckpointError: it names none.
    """
    try:
        base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    except (AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder / ADAPTER_CONFIG} is damaged: {error}") from error
    if not base:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path; add the folder or hub "
            "name of the model that the adapter was trained on."
        )
    return str(base)


def load_carrier(
    start: Start, head: HeadConfig, options: dict[str, Any], *, again: bool = False
) -> tuple[Any, bool]:
    """The Hugging Face model that carries a head, and whether its head is a trained one.

    Args:
        start: not an adapter of ours, which `RewardModel.from_pretrained` loads.
        head: the head that it will carry.
        options: of ``from_pretrained``.
        again: the model was loaded before in this run, so its start was logged.

    Raises:
        CheckpointError: it cannot be loaded, or has nothing that the head could start from.
    """
    base, found = load_base(start.source, head, options)
    trained = head.head_class.is_trained(found["missing_keys"], start.card, start.source)
    refuse_absent(found["missing_keys"], start.source, besides=head.head_class.layer(base), of=base)
    if start.adapter is not None:
        base = merged(base, start.adapter, head)
        trained = trained or head.head_class.in_adapter(start.adapter)
    if start.card is not None and start.card.head.kind != head.kind and not again:
        logger.warning(
            "%s is a reward model with a %s head; its head is left out, and a new %s head is put "
            "on its backbone.", start.source, start.card.head.kind, head.kind,
        )
    if trained and not again:
        logger.info("Training continues from the head of the reward model %s.",
                    start.adapter or start.source)
    return base, trained


def check_base_model(
    source: str | Path, head: HeadConfig, attn_implementation: str | None = None
) -> Any:
    """Refuse a model that a head cannot be put on, without reading its weights; returns the model
    that carries the head, on the device ``meta``.

    Raises:
        CheckpointError: there is no such model, its files are damaged, it is an encoder, or its
            architecture or trained head does not fit.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    start = find_start(source)
    check_trained_head(start, head)
    carrier = outline(start.source, head, attn_implementation=attn_implementation)
    head.head_class.layer(carrier)
    # Not every encoder can be told so; `check_causal` runs the model with its weights.
    reads_both_ways = getattr(carrier.config, "is_decoder", None) is False
    if reads_both_ways and type(carrier.config) in MODEL_FOR_MASKED_LM_MAPPING:
        raise _encoder(carrier, source)
    return carrier


def check_trained_head(start: Start, head: HeadConfig) -> None:
    """Refuse a reward model whose trained head does not fit the head that is asked for.

    Raises:
        CheckpointError: names both heads.
    """
    if start.card is None:
        return
    trained, source = start.card.head, start.adapter or start.source
    head.head_class.check_start(head, trained, source)
    if start.adapter is not None and trained.kind != head.kind:
        raise CheckpointError(
            f"{source} is an adapter with a {trained.kind} head, and a {head.kind} head is asked "
            f"for; set head.kind={trained.kind} to go on with it, or start from its base model "
            f"{start.source}."
        )


def _encoder(carrier: Any, source: str | Path) -> CheckpointError:
    return CheckpointError(
        f"{source} is a {type(carrier).__name__} that attends to later tokens, as encoders do, so "
        "it gives no rewards of prefixes and generates no text. Use a decoder such as Llama, Qwen, "
        "Mistral, GPT-NeoX or Gemma."
    )


def check_causal(carrier: Any, source: str | Path) -> None:
    """Refuse an encoder that is loaded as a language model: its states contain later tokens, so it
    has no rewards of prefixes. Weights that ZeRO-3 shards and attention that needs an accelerator
    cannot be checked here.

    Raises:
        CheckpointError: the model attends to later tokens.
    """
    attention = getattr(carrier.config, "_attn_implementation", None)
    if attention not in (None, "sdpa", "eager") or any(
        is_zero3_sharded(one) for one in carrier.parameters()
    ):
        return
    if not is_causal(backbone_of(carrier)):
        raise _encoder(carrier, source)


def load_language_model(source: str | Path, dtype: torch.dtype | str = "auto") -> Any:
    """A causal language model with all its weights to be trained; an adapter is folded into them.

    Args:
        source: a model folder, an adapter's folder, or a hub name.
        dtype: of the weights; ``auto``: as saved.

    Raises:
        CheckpointError: it cannot be loaded, or is a reward model.
    """
    start, head = find_start(source), HeadConfig(kind=LANGUAGE_MODEL_HEAD)
    task = None if start.adapter is None else _task(start.adapter)
    if start.card is not None or task not in (None, "CAUSAL_LM"):
        raise CheckpointError(
            f"{source} is a reward model, and a causal language model was expected; name the model "
            "that it started from."
        )
    base, found = load_base(start.source, head, {"dtype": dtype, "trust_remote_code": False})
    refuse_absent(found["missing_keys"], start.source)
    check_causal(base, start.source)
    return base if start.adapter is None else merged(base, start.adapter, head)


def _task(adapter: Path) -> str | None:
    task: str | None = read_json(adapter / ADAPTER_CONFIG).get("task_type")
    return task


def merged(base: Any, adapter: Path, head: HeadConfig) -> Any:
    """A model with a foreign adapter folded into its weights, and the head where it brings one.

    Raises:
        CheckpointError: the adapter does not fit the model.
    """
    from peft import PeftConfig, PeftModel

    try:
        config = PeftConfig.from_pretrained(str(adapter))
        if config.task_type != "SEQ_CLS" or head.head_class.pipeline_tag != "text-classification":
            # peft's class for the task expects attributes that only models of that task have.
            config.task_type = None
        names = {name.rpartition(".")[2] for name, _ in base.named_modules()}
        kept = [name for name in getattr(config, "modules_to_save", None) or [] if name in names]
        config.modules_to_save = kept or None
        model = PeftModel.from_pretrained(base, str(adapter), config=config)
        whole = thawed(model.merge_and_unload())
    except Exception as error:  # files that do not fit raise dozens of unrelated kinds
        raise CheckpointError(
            f"The adapter in {adapter} cannot be put on its base model "
            f"({type(error).__name__}: {error})."
        ) from error
    logger.debug("The adapter %s is merged into %s.", adapter, base.config.name_or_path)
    return whole


def thawed(model: nn.Module) -> Any:
    """A model with all its weights to be trained: peft leaves merged ones frozen."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return model
