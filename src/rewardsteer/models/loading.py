"""Hugging Face models as the carriers of a head."""

from pathlib import Path
from typing import Any

import torch

from rewardsteer.errors import CheckpointError
from rewardsteer.models.backbone import classifier_config
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.vocabulary import (
    RewardProjection,
    install_projection,
    limit_tokens,
)
from rewardsteer.models.logits import make_neutral
from rewardsteer.models.sharding import gathered


def load_base(source: str | Path, head: HeadConfig, options: dict[str, Any]) -> Any:
    """The Hugging Face model that carries a head; ``options`` are ``from_pretrained``'s.

    Raises:
        CheckpointError: it cannot be loaded, or transformers has no such model for its
            architecture.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    try:
        config = AutoConfig.from_pretrained(str(source), num_labels=1, trust_remote_code=False)
        scalar = head.kind == "scalar"
        kind: Any = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
        if scalar:
            config = classifier_config(config)
        known = type(config) in kind._model_mapping
        if known:
            return kind.from_pretrained(
                str(source), **({"config": config} if scalar else {}), **options
            )
    except Exception as error:  # damaged files raise dozens of unrelated kinds
        problem = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"The model {source} cannot be loaded ({problem}).") from error
    wanted = "causal language model or classifier" if scalar else "causal language model"
    raise CheckpointError(
        f"The installed transformers has no {wanted} of the architecture {config.model_type!r}, "
        f"which {source} is of; choose a decoder such as Llama, Qwen, Mistral or Gemma."
    )


def check_scalar(base: Any, source: str | Path) -> None:
    """Refuse a classifier whose reward is not read off the last token by a linear ``score``.

    Raises:
        CheckpointError: an encoder (BERT, RoBERTa, DeBERTa, …) or another kind of classifier.
    """
    if isinstance(getattr(base, "score", None), torch.nn.Linear):
        return
    raise CheckpointError(
        f"{source} is a {type(base).__name__}, which has no linear 'score' layer over the last "
        "token: encoders such as BERT, RoBERTa and DeBERTa read whole texts at once and give no "
        "rewards of prefixes. Use a decoder such as Llama, Qwen, Mistral, GPT-NeoX or Gemma."
    )


def refuse_pickles(folder: Path, head: HeadConfig) -> None:
    """Raise `CheckpointError` where the only weights are of a kind that runs code when read."""
    pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if not pickles or any(folder.glob("*.safetensors")):
        return
    kind = "SequenceClassification" if head.kind == "scalar" else "CausalLM"
    raise CheckpointError(
        f"The weights in {folder} are a pickle ({min(pickles).name}), which can run code when it "
        "is read, so only safetensors are read. If you trust where it is from, convert it once: "
        f"python -c \"from transformers import AutoModelFor{kind} as M; "
        f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )


def open_trained_vocabulary(base: Any, card: CheckpointCard, folder: Path) -> None:
    """Make the output layer of a trained model with a vocabulary head readable without making all
    logits, in place; its maxima range over the tokens that can be generated."""
    install_projection(base)
    if card.tokens:
        base.get_output_embeddings().generated = card.tokens
    else:
        limit_tokens(base, load_tokenizer(folder))


def open_vocabulary(base: Any, head: HeadConfig) -> Any:
    """Untie the output layer from the embeddings, set its start, and make logits plain products."""
    old = base.get_output_embeddings()
    if old is None:
        raise CheckpointError(f"{type(base).__name__} has no output layer to read rewards from.")
    factor = make_neutral(base)
    new = RewardProjection(
        old.in_features, old.out_features, bias=old.bias is not None,
        device=old.weight.device, dtype=old.weight.dtype,
    )
    with torch.no_grad(), gathered(old.parameters()):
        for name, parameter in new.named_parameters():
            parameter.copy_(getattr(old, name)).mul_(factor)
            if head.init == "zeros":
                parameter.zero_()
    base.set_output_embeddings(new)
    base.config.tie_word_embeddings = False
    # Without this the library would tie the two again when the folder is saved or loaded.
    base._tied_weights_keys = {}
    base.all_tied_weights_keys = {}
    return base
