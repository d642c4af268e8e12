"""One set of base weights for policy and reward model: the latter as adapters and a head.

A reward model that was trained with LoRA and kept as an adapter (``lora.merge=false``) differs from
its base by the adapters and the head. On a policy that *is* this base it needs no second copy of
the weights, and one batch serves both models: it holds every prefix twice, and the adapters act on
the reward model's half. Outputs are those of two models.

Shapes: B prefixes, T columns, V the policy's vocabulary, D hidden size.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.models.adapter_folder import check_base
from rewardsteer.models.backbone import backbone_name, backbone_of
from rewardsteer.models.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_card
from rewardsteer.models.logits import is_neutral
from rewardsteer.models.placement import put_beside
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.shared_pass import OnPolicyScorer

_NAME = "reward"


class SharedScorer(OnPolicyScorer):
    """A kept adapter as reward model on the very weights of the policy.

    The policy is unchanged: by default, adapters act on no row.

    Args:
        policy: a causal LM in evaluation mode, of which the adapter was trained; changed in place.
        source: folder or hub name of the policy.
        folder: the reward model, kept as an adapter.

    Raises:
        CheckpointError: the folder holds no adapter, or one that does not fit.
        MismatchError: the adapter belongs to another base model.
    """

    def __init__(self, policy: Any, source: str, folder: Path) -> None:
        card = read_card(folder)
        if not (folder / ADAPTER_CONFIG).exists():
            raise CheckpointError(
                f"Sharing the policy's weights needs a reward model kept as an adapter, and "
                f"{folder} is a whole model; train with lora.merge=false, or do not share."
            )
        check_base(card, folder, source)
        backbone = backbone_of(policy)
        rows = _Rows(backbone)
        head = _put_on(policy, backbone, folder)
        for layer in backbone.modules():
            if isinstance(layer, LoraLayer):
                layer.register_forward_pre_hook(rows.name, with_kwargs=True)
        carrier = _Carrier(policy, _Side(rows, policy, True), head)
        own = card.head.head_class.restore(carrier, card.head, folder)
        super().__init__(policy, RewardModel(carrier, card.head, own), folder, card)
        self._joint = _Side(rows, policy, None)

    def open_policy(self) -> Any:
        """The policy's reader for a batch. With a vocabulary head, which is asked about the same
        prefixes as the policy, both are read together; a scalar one is asked about candidates,
        which the policy has to name first, so it reads in passes of its own."""
        if not self.gives_next_token or not is_neutral(self.policy.config):
            return PrefixReader(self.policy)
        size = len(self.policy.get_input_embeddings().weight)
        return self.read_together(PrefixReader(self._joint), size)


def _put_on(policy: Any, backbone: nn.Module, folder: Path) -> Any:
    """Put the folder's adapters on the backbone; returns its head, a linear layer."""
    settings = LoraConfig.from_pretrained(str(folder))
    settings.modules_to_save, settings.inference_mode = None, True
    weights = load_file(folder / ADAPTER_WEIGHTS)
    start = f"base_model.model.{backbone_name(policy)}."
    inner = {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}
    outer = {
        name.rpartition(".")[2]: value for name, value in weights.items()
        if not name.startswith(start)
    }
    # Their names within the backbone; the settings name them within the whole model.
    settings.target_modules = {name.partition(".lora_")[0] for name in inner}
    settings.exclude_modules = None
    try:
        inject_adapter_in_model(settings, backbone, adapter_name=_NAME)
        result = set_peft_model_state_dict(backbone, inner, adapter_name=_NAME)
        # Wrong sizes raise; unknown names are returned.
        if result.unexpected_keys or "weight" not in outer:
            raise ValueError(f"unknown weights {result.unexpected_keys[:3]} or no head")
    except (ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"The adapter in {folder} does not fit {type(policy).__name__}: {error}"
        ) from error
    size, width = outer["weight"].shape
    layer_class = read_card(folder).head.head_class.layer_class
    head = layer_class(width, size, bias="bias" in outer, dtype=outer["weight"].dtype)
    head.load_state_dict(outer)
    return put_beside(policy.get_input_embeddings(), head).requires_grad_(False)


class _Rows:
    """Runs the backbone with adapters on the reward model's rows alone."""

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        self._names: list[str] | None = None

    def name(self, layer: nn.Module, states: Any, options: dict[str, Any]) -> tuple[Any, Any]:
        """A hook before the call of a layer with adapters: names the adapter of each row."""
        options["adapter_names"] = self._names or ["__base__"] * len(states[0])
        return states, options

    def read(self, rewarded: Sequence[bool], *args: Any, **options: Any) -> Any:
        """The backbone's output, with adapters on the rows ``[R]`` that are true."""
        self._names = [_NAME if one else "__base__" for one in rewarded]
        try:
            return self.backbone(*args, **options)
        finally:
            self._names = None


class _Side(nn.Module):
    """The backbone as the reward model's (``rewarded``), or as both models' at once (None): there
    ids from V on mark the rows of the reward model, whatever rows are read together."""

    def __init__(self, rows: _Rows, policy: Any, rewarded: bool | None) -> None:
        super().__init__()
        self.config, size = policy.config, len(policy.get_input_embeddings().weight)
        self._rows = rows

        # Callers look at the signature.
        @functools.wraps(rows.backbone.forward)
        def forward(input_ids: Tensor, **options: Any) -> Any:
            if rewarded is None:
                marked = (input_ids >= size).any(dim=1).tolist()
            else:
                marked = [rewarded] * len(input_ids)
            return rows.read(marked, input_ids=input_ids % size, **options)

        self.forward = forward

    @property
    def dtype(self) -> torch.dtype:
        return next(self._rows.backbone.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self._rows.backbone.parameters()).device


class _Carrier(nn.Module):
    """What a `RewardModel` reads parameters from."""

    base_model_prefix = "backbone"

    def __init__(self, policy: Any, backbone: _Side, head: nn.Module) -> None:
        super().__init__()
        self.config, self.backbone, self.score = policy.config, backbone, head
        self.get_input_embeddings = policy.get_input_embeddings

    def get_output_embeddings(self) -> nn.Module:
        """A vocabulary head."""
        return self.score
