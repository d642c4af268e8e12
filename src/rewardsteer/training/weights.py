"""Saving and loading the trained weights, under engines that shard them too."""

from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from rewardsteer.errors import CheckpointError, OutputError
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.sharding import gathered
from rewardsteer.outputs import sync


def save_weights(model: RewardModel, path: Path) -> None:
    """Write the trained weights (all, or adapters and head), whole or not at all.

    Every process calls this; the first one writes. Parameters are gathered one by one.

    Raises:
        OutputError: the file cannot be written.
    """
    main = PartialState().is_main_process
    changed = {name: whole.cpu() for name, whole in trained_weights(model) if main}
    if not main:
        return
    temporary = path.with_name(f".{path.name}")
    try:
        save_file(changed, temporary)
        sync(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"The weights {path} cannot be written ({error}); earlier phases and checkpoints are "
            "kept. Free disk space, then go on with resume=True (--resume)."
        ) from error


def trained_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and full values of the trained parameters; every process calls this."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Parameters that a forward pass gathered, rounded under bf16, stay until the next one.
            module.reshard()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, _whole_parameter(parameter)


def _whole_parameter(parameter: nn.Parameter) -> Tensor:
    value = parameter.detach()
    if isinstance(value, DTensor):
        return value.full_tensor().contiguous()
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):
        from deepspeed.utils import safe_get_full_fp32_param

        # What DeepSpeed computes with is rounded under bf16 and fp16; this is what it trains.
        exact: Tensor = safe_get_full_fp32_param(parameter)
        return exact.detach().clone().view(getattr(parameter, "ds_shape", parameter.shape))
    return value.contiguous()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the file of `save_weights` into a model built from the same settings.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another model.
    """
    if not path.exists():
        raise CheckpointError(f"Expected the weights of a finished phase at {path}.")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"The weights {path} are damaged: {error}.") from error
    parameters = dict(model.named_parameters())
    unexpected = sorted(weights.keys() - parameters.keys())
    if unexpected:
        raise CheckpointError(f"{path} holds weights that this model lacks: {unexpected[:3]}.")
    for name, weight in weights.items():
        with torch.no_grad(), gathered([parameters[name]]):
            _assign(parameters[name], weight)


def _assign(parameter: nn.Parameter, whole: Tensor) -> None:
    """Set a parameter to a full value, or to this process's share of it where FSDP2 shards it."""
    value = parameter.detach()
    if not isinstance(value, DTensor):
        value.copy_(whole)
        return
    shares = distribute_tensor(whole.to(value.dtype), value.device_mesh, value.placements)
    # The share may be on the CPU while its processes compute on accelerators.
    value.to_local().copy_(shares.to_local())
