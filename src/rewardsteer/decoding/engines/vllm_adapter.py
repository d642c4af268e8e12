"""A reward model kept as a LoRA adapter, on the policy's own weights inside vLLM.

It is a second model of the policy's architecture with attention layers of its own, because its keys
and values differ, and without weights of its own: its linear layers compute with the policy's,
quantised or not, and add their low-rank products. The head is its own.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from vllm.model_executor.layers.linear import (
    LinearBase,
    LinearMethodBase,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

from rewardsteer.errors import CheckpointError

_MERGE = "merge the reward model into whole weights (lora.merge=true)"


class SharedWeights(QuantizationConfig):
    """Gives the linear layers of a second model the weights of a first one, by their names. vLLM
    asks it, while building a layer, how the layer stores and applies its weights.

    Args:
        prefix: of the second one's layers.
    """

    def __init__(self, model: nn.Module, prefix: str) -> None:
        super().__init__()
        self._model = model
        self._layers = {f"{prefix}.{name}": layer for name, layer in model.named_modules()}

    def get_quant_method(self, layer: nn.Module, prefix: str) -> LinearMethodBase | None:
        """How the layer applies its weights; None: as usual."""
        if not isinstance(layer, LinearBase):
            return None
        if prefix not in self._layers:
            raise CheckpointError(f"An adapter cannot share the policy's layer {prefix}; {_MERGE}.")
        return _SharedLinear(self._layers[prefix])

    def share(self, second: nn.Module) -> None:
        """Share the parameters outside linear layers too: norms, embeddings, biases."""
        for name, layer in self._model.named_modules():
            own = second.get_submodule(name)._parameters
            if not isinstance(layer, ParallelLMHead):
                own |= {key: one for key, one in layer._parameters.items() if key in own}

    def get_name(self) -> Any:
        """Name of this method; only vLLM's own methods have names for users."""
        return "rewardsteer-shared"

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        """All that models run in."""
        return [torch.float32, torch.bfloat16, torch.float16]

    @classmethod
    def get_min_capability(cls) -> int:
        """Any device."""
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        """It is made of a model, not of files."""
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """It is made of a model, not of settings."""
        raise NotImplementedError


class _SharedLinear(LinearMethodBase):
    """Another layer's product, plus a low-rank one."""

    def __init__(self, base: Any) -> None:
        self._base = base

    def create_weights(self, layer: nn.Module, *sizes: Any, **attributes: Any) -> None:
        """Nothing: the layer has no weights."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        """Nothing: the first model processes its own."""

    def apply(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's output, before it is reduced over tensor-parallel ranks."""
        output: Tensor = self._base.quant_method.apply(self._base, x, bias)
        if not hasattr(layer, "lora_down"):
            return output
        low = nn.functional.linear(x, layer.lora_down)
        return output + nn.functional.linear(low, layer.lora_up)


def load_adapter(
    model: nn.Module, folder: Path, weights: Iterable[tuple[str, Tensor]]
) -> set[str]:
    """Put a peft adapter's low-rank weights and head on a model that has `SharedWeights`.

    Returns:
        Names of all parameters: those that are shared are loaded with the first model.

    Raises:
        CheckpointError: the adapter is of another kind, or does not fit.
    """
    config = LoraConfig.from_pretrained(str(folder))
    if config.use_dora or config.bias != "none" or config.alpha_pattern:
        raise CheckpointError(f"The adapter in {folder} has DoRA, biases or patterns; {_MERGE}.")
    pairs: dict[str, dict[str, Tensor]] = {}
    heads = []
    for name, weight in weights:
        path, _, kind = name.removeprefix("base_model.model.").partition(".lora_")
        if kind:
            pairs.setdefault(path, {})[kind[0]] = weight
        else:
            heads.append(weight)
    layers: list[Any] = [one for one in model.modules() if isinstance(one, ParallelLMHead)]
    if [len(head) for head in heads] != [layer.org_vocab_size for layer in layers]:
        raise CheckpointError(f"The adapter in {folder} has no head that fits; {_MERGE}.")
    layers[0].weight_loader(layers[0].weight, heads[0])
    for path, pair in pairs.items():
        rank = len(pair["A"])
        scale = config.lora_alpha / (rank**0.5 if config.use_rslora else rank)
        try:
            _put_on(getattr(model, "inner", model), path, pair["A"], pair["B"] * scale)
        except (AttributeError, AssertionError, KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"The adapter in {folder} does not fit the policy's layer {path}; {_MERGE}."
            ) from error
    return {name for name, _ in model.named_parameters()}


def _put_on(model: Any, path: str, down: Tensor, up: Tensor) -> None:
    """Add a low-rank product to a linear layer, or to its part of several that vLLM joins; of a
    layer that is split over ranks, this rank's share."""
    parent, _, name = path.rpartition(".")
    part: tuple[Any, ...] = ()
    for joined, parts in getattr(model, "packed_modules_mapping", {}).items():
        if len(parts) > 1 and name in parts:
            name, part = joined, (parts.index(name),)
            break
    layer: Any = model.get_submodule(f"{parent}.{name}")
    if isinstance(layer, QKVParallelLinear):
        part = tuple("qkv"[place] for place in part)
    if isinstance(layer, RowParallelLinear):
        shape, weight, share = (len(down), layer.input_size_per_partition), down, "input_dim"
    else:
        size = getattr(layer, "output_size_per_partition", layer.output_size)
        shape, weight, share = (size, len(down)), up, "output_dim"
    kept: Any = nn.Parameter(torch.zeros(shape, device="cpu", dtype=up.dtype), requires_grad=False)
    setattr(kept, share, int(share == "input_dim"))
    layer.weight_loader(kept, weight.to("cpu"), *part)
    down, up = (kept.data, up) if share == "input_dim" else (down, kept.data)
    where = {"device": next(model.parameters()).device, "dtype": layer.params_dtype}
    down, up = down.to(**where), up.to(**where)
    if hasattr(layer, "lora_down"):
        down, up = torch.cat([layer.lora_down, down]), torch.cat([layer.lora_up, up], dim=1)
    layer.lora_down = nn.Parameter(down, requires_grad=False)
    layer.lora_up = nn.Parameter(up, requires_grad=False)
