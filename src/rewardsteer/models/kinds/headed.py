"""Loading a published backbone with a head of any form as a `RewardModel` with a scalar head."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rewardsteer.errors import CheckpointError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.layers import Layer, WideLinear, as_module, share
from rewardsteer.models.kinds.custom_code import code_sentence
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.loading import load_base, refuse_absent, refuse_pickles
from rewardsteer.models.placement import placed, put_beside, working_device
from rewardsteer.models.reward_model import RewardModel

# Names under which published code keeps the backbone; transformers has one per architecture.
_BACKBONES = ("pretrained_model", "transformer", "backbone", "model")
# Architectures of transformers that published code gave names of its own.
_ARCHITECTURES = {"gpt_neox_reward_model": "gpt_neox"}
# Where the head's weights go, which transformers then leaves alone.
_ASIDE = "head_read_elsewhere"


def load_headed(
    folder: FolderDescription, layers: list[Layer], *, head_name: str | None,
    device: str | torch.device, dtype: torch.dtype | None, module: nn.Module | None = None,
    **options: Any,
) -> RewardModel:
    """The backbone of a folder with a head that gives one number.

    Args:
        folder: what is loaded.
        layers: of the head, the last one with one output.
        head_name: what the head's weights are called in the folder; None: none are its own.
        module: computes the reward ``[..., 1]`` of states in place of the layers, which then only
            give the size of the states.
        device, dtype, options: see `rewardsteer.models.kinds.base.Kind.load`.

    Raises:
        CheckpointError: the backbone cannot be built, or weights are missing.
        ConfigError: there is no such device.
    """
    refuse_pickles(folder.path)
    kind = _architecture(folder)
    place, options = placed(folder.path, device, options)
    mapping = {} if head_name is None else {rf"^{re.escape(head_name)}\.": f"{_ASIDE}."}
    config = HeadConfig()
    with _without_report():
        base, found = load_base(folder.path, config, options | {
            "dtype": dtype or "auto", "trust_remote_code": False, "use_safetensors": True,
            "key_mapping": mapping | _renamed(folder, kind),
            # A head of several outputs may be called as transformers' own layer is.
            "ignore_mismatched_sizes": True,
        }, _own_config(folder, kind))
    unread = {*found["missing_keys"], *(one[0] for one in found["mismatched_keys"])}
    refuse_absent(
        unread - {"score.weight"}, folder.name, remedy="the backbone has other names or sizes "
        "there, or a file is missing: copy the whole folder again, or name another kind",
    )
    own = _install(base, layers, module)
    kept = config if own is None else HeadConfig(layers="mlp")
    model = RewardModel(base, kept, own).eval()
    return model if place is None else model.to(place)


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from reporting the head as newly drawn: it is put in its place afterwards,
    and other weights that are missing are an error."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _install(base: Any, layers: list[Layer], module: nn.Module | None) -> nn.Module | None:
    """Put the head on a classifier: in place of its ``score`` where it is such a layer, else as a
    module beside it, which is returned."""
    size = base.score.in_features
    if layers[0].weight.shape[1] != size:
        raise CheckpointError(
            f"The head takes states of {layers[0].weight.shape[1]} numbers, the backbone gives "
            f"{size}."
        )
    if module is not None:
        return put_beside(base.score, module)
    if len(layers) > 1 or layers[0].bias is not None:
        return put_beside(base.score, as_module(layers))
    score = share(WideLinear, base.score)
    score.weight = nn.Parameter(layers[0].weight.to(working_device(base.score)))
    base.score = score
    return None


def _architecture(folder: FolderDescription) -> str:
    """The architecture by its name in transformers; one that only code of the folder's own defines
    raises `CheckpointError`."""
    from transformers import CONFIG_MAPPING

    named = folder.config.get("model_type")
    kind = _ARCHITECTURES.get(str(named), named)
    if kind in CONFIG_MAPPING:
        return str(kind)
    raise CheckpointError(
        f"The installed transformers has no architecture {named!r}. {code_sentence(folder)}; if "
        "you trust it, pass kind='custom_code' and trust_remote_code=True."
    )


def _own_config(folder: FolderDescription, kind: str) -> Any:
    """The configuration of an architecture that has another name in the folder; else None."""
    from transformers import CONFIG_MAPPING

    if folder.config["model_type"] == kind:
        return None
    return CONFIG_MAPPING[kind].from_dict(folder.config | {"model_type": kind})


def _renamed(folder: FolderDescription, kind: str) -> dict[str, str]:
    """How the backbone's weights are renamed for transformers, as patterns."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    known = MODEL_FOR_CAUSAL_LM_MAPPING.get(CONFIG_MAPPING[kind], None)
    own = getattr(known, "base_model_prefix", "model")
    for name in _BACKBONES:
        if name != own and any(one.startswith(f"{name}.") for one in folder.tensors):
            return {rf"^{name}\.({own}\.)?": f"{own}."}
    return {}
