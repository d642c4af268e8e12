"""Loading Hugging Face models that carry a head."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from rewardsteer.errors import CheckpointError
from rewardsteer.models.attention import with_caps
from rewardsteer.models.backbone import classifier_config
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.places import no_model


def load_base(
    source: str | Path, head: HeadConfig, options: dict[str, Any], config: Any = None
) -> Any:
    """The Hugging Face model that carries a head, and what transformers reports of its weights
    (``missing_keys``, …); ``options`` are ``from_pretrained``'s, ``config`` is used in place of the
    folder's own.

    Raises:
        CheckpointError: it cannot be loaded, or transformers has no such model for its
            architecture.
    """
    with _named(source):
        kind, config = _carrier_of(source, head, config)
        return kind.from_pretrained(
            str(source), output_loading_info=True,
            **({"config": config} if "SequenceClassification" in kind.__name__ else {}),
            **with_caps(options, config),
        )


def outline(source: str | Path, head: HeadConfig, **options: Any) -> Any:
    """The model of `load_base` without weights, on the device ``meta``; ``options`` are
    ``from_config``'s.

    Raises:
        CheckpointError: as `load_base`, or the folder lacks files of weights or holds damaged ones.
    """
    with _named(source):
        kind, config = _carrier_of(source, head)
        _check_weights(Path(source))
        with torch.device("meta"):
            return kind.from_config(config, **options)


def _check_weights(folder: Path) -> None:
    """Refuse a folder without weights, or whose files of weights are cut off or absent."""
    if not folder.is_dir():
        return
    files = sorted(folder.glob("*.safetensors"))
    if not files and not any(folder.glob("*.bin")):
        raise CheckpointError(f"Expected weights (*.safetensors) in {folder}, found none.")
    for file in files:
        with safe_open(file, framework="pt"):
            pass


@contextmanager
def _named(source: str | Path) -> Iterator[None]:
    """Context in which any error but ours becomes a `CheckpointError` that names the model."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # damaged files raise dozens of unrelated kinds
        problem = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"The model {source} cannot be loaded ({problem}).") from error


def _carrier_of(source: str | Path, head: HeadConfig, config: Any = None) -> tuple[Any, Any]:
    """transformers' class for the model that carries a head, and the model's configuration.

    Raises:
        CheckpointError: no configuration, or no class for its architecture.
    """
    import transformers
    from transformers import AutoConfig

    kind: Any = getattr(transformers, head.head_class.auto_class)
    classifier = kind is transformers.AutoModelForSequenceClassification
    if config is None:
        if Path(source).is_dir() and not (Path(source) / "config.json").exists():
            raise CheckpointError(no_model(source))
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
    if classifier:
        config.num_labels = head.outputs
        if head.attributes:
            config.id2label = dict(enumerate(head.attributes))
            config.label2id = {name: at for at, name in enumerate(head.attributes)}
        config = classifier_config(config)
    if type(config) in kind._model_mapping:
        return kind, config
    wanted = "causal language model or classifier" if classifier else "causal language model"
    raise CheckpointError(
        f"The installed transformers has no {wanted} of the architecture {config.model_type!r}, "
        f"which {source} is of; choose a decoder such as Llama, Qwen, Mistral or Gemma."
    )


def refuse_absent(
    missing: Iterable[str], source: str | Path, *, besides: nn.Module | None = None, of: Any = None,
    remedy: str = "copy the whole folder again, or name another model or kind",
) -> None:
    """Raise `CheckpointError` where weights lack parameters, which the library would draw at
    random.

    Args:
        missing: names of parameters that the weights lacked.
        source: of the weights, for the message.
        besides: a layer that may be missing, because it is initialised afterwards …
        of: … of this model.
        remedy: what to do, as the sentence ends.
    """
    anew = [] if besides is None else [
        name for name, module in of.named_modules() if module is besides
    ]
    absent = sorted(one for one in missing if one.rpartition(".")[0] not in anew)
    if not absent:
        return
    raise CheckpointError(
        f"The weights in {source} lack {', '.join(absent[:3])}"
        f"{' and more' if len(absent) > 3 else ''}, which would be drawn at random; {remedy}."
    )


def no_score(model: Any, source: str | Path) -> CheckpointError:
    """The error for a classifier without a linear ``score`` layer over the last token."""
    return CheckpointError(
        f"{source} is a {type(model).__name__}, which has no linear 'score' layer over the last "
        "token: encoders such as BERT, RoBERTa and DeBERTa read whole texts at once and give no "
        "rewards of prefixes. Use a decoder such as Llama, Qwen, Mistral, GPT-NeoX or Gemma."
    )


def refuse_pickles(folder: Path, kind: str = "AutoModelForSequenceClassification") -> None:
    """Raise `CheckpointError` where the only weights are of a kind that runs code when read;
    ``kind`` is transformers' class that reads them."""
    pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if not pickles or any(folder.glob("*.safetensors")):
        return
    raise CheckpointError(
        f"The weights in {folder} are a pickle ({min(pickles).name}), which can run code when it "
        "is read, so only safetensors are read. If you trust where it is from, convert it once: "
        f"python -c \"from transformers import {kind} as M; "
        f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )
