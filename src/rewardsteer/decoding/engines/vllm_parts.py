"""The models inside of `RewardGuidedForCausalLM`: the policy, and each reward model."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig
from vllm.compilation.backends import set_model_tag
from vllm.config import VllmConfig
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.models.interfaces import (
    has_inner_state,
    is_attention_free,
    supports_multimodal,
)
from vllm.model_executor.models.utils import init_vllm_registered_model, maybe_prefix
from vllm.transformers_utils.config import get_hf_text_config

from rewardsteer.decoding.engines.vllm_adapter import SharedWeights, load_adapter
from rewardsteer.decoding.engines.vllm_settings import ENTRY, read_settings
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.adapter_folder import check_base
from rewardsteer.models.checkpoint import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_tokenizer, read_card
from rewardsteer.models.known_ids import KnownIds
from rewardsteer.models.logits import is_neutral


@dataclass(eq=False)
class RewardPart:
    """A reward model inside of the guided model.

    Attributes:
        known: the token ids that it knows, and a stand-in for others.
        vocabulary: number of token ids with rewards; those of later ids have no meaning.
        normalise: rewards are logits of a language model, used as log-probabilities.
        shared: whether it is an adapter on the policy's weights.
    """

    folder: Path
    model: Any
    known: KnownIds
    vocabulary: int
    normalise: bool
    shared: bool

    @property
    def files(self) -> str:
        """The weight files among those of the folder."""
        return ADAPTER_WEIGHTS if self.shared else "model*.safetensors"

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
        """Load the weights; the names of the loaded ones."""
        weights = self._finite(weights)
        if self.shared:
            return load_adapter(self.model, self.folder, weights)
        names: set[str] | None = self.model.load_weights(weights)
        return names

    def _finite(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The weights, checked as they are read: vLLM may quantise them when it has them.

        Raises:
            CheckpointError: vLLM's cache would carry what is no number from one request to another.
        """
        for name, weight in weights:
            # float8 has no test of its own.
            values = weight if weight.dtype.itemsize > 1 else weight.float()
            if not bool(values.isfinite().all()):
                raise CheckpointError(
                    f"The reward model in {self.folder} holds weights that are NaN or infinite."
                )
            yield name, weight


class OwnHead(nn.Module):
    """A reward model with its own output layer, for architectures whose vLLM class ties it to the
    embedding."""

    def __init__(self, inner: Any, size: int, width: int, prefix: str) -> None:
        super().__init__()
        self.inner = inner
        self.lm_head = ParallelLMHead(size, width, prefix=f"{prefix}.lm_head")
        self._logits = LogitsProcessor(size)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        states: Tensor = self.inner(ids, positions)
        return states

    def compute_logits(self, states: Tensor) -> Tensor | None:
        """Rewards of all next tokens."""
        return self._logits(self.lm_head, states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
        """Load model and head; the names of the loaded weights."""
        heads: dict[str, Tensor] = {}

        def others() -> Iterable[tuple[str, Tensor]]:
            for name, weight in weights:
                if name == "lm_head.weight":
                    heads[name] = weight
                else:
                    yield name, weight

        names = self.inner.load_weights(others())
        for weight in heads.values():
            self.lm_head.weight_loader(self.lm_head.weight, weight)
        return None if names is None else {f"inner.{name}" for name in names} | heads.keys()


def build_policy(vllm_config: VllmConfig, prefix: str) -> nn.Module:
    """The policy, without weights.

    Raises:
        ConfigError: it cannot run side by side with another model.
    """
    names = read_settings(vllm_config.model_config.hf_config).policy
    policy = init_vllm_registered_model(
        vllm_config, prefix=maybe_prefix(prefix, "policy"), architectures=names
    )
    if has_inner_state(policy) or is_attention_free(policy) or supports_multimodal(policy):
        raise ConfigError(
            f"vLLM can guide policies that read text with attention alone, and {names[0]} keeps "
            "other states or reads other inputs; use the engine transformers (--engine)."
        )
    return policy


def build_reward(
    vllm_config: VllmConfig, policy: nn.Module, folder: Path, prefix: str
) -> RewardPart:
    """A reward model without weights; an adapter shares the policy's.

    Raises:
        MismatchError: an adapter that was trained on another policy.
        ConfigError: an adapter on a policy that changes its logits after an output layer.
    """
    shared, card = (folder / ADAPTER_CONFIG).exists(), read_card(folder)
    model_config = vllm_config.model_config
    if shared:
        check_base(card, folder, model_config.model)
        config = copy.deepcopy(model_config.hf_config)
        config.architectures = read_settings(config).policy
        config.tie_word_embeddings = False
    else:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # vLLM's caches of compiled code know models by their configuration, or by a tag. Compiled code
    # holds the names of layers, so a part never takes that of another.
    setattr(config, ENTRY, {"part": prefix})
    own = vllm_config.with_hf_config(config)
    own.model_config.hf_text_config = get_hf_text_config(config)
    own.model_config.model = str(folder)
    if shared:
        own.quant_config = SharedWeights(policy, prefix)
    elif getattr(model_config.hf_config, "quantization_config", None) is not None:
        # Of the policy's checkpoint; what is quantised while it is loaded holds for both.
        own.quant_config, own.model_config.quantization = None, None
    with set_model_tag(prefix):
        model = init_vllm_registered_model(own, prefix=prefix)
    if shared:
        own.quant_config.share(model)
    tokenizer, text = load_tokenizer(folder), config.get_text_config()
    rows = text.vocab_size
    if not any(isinstance(layer, ParallelLMHead) for layer in model.modules()):
        model = OwnHead(model, rows, text.hidden_size, prefix)
    elif shared and not is_neutral(config):
        raise ConfigError(
            f"The policy {model_config.model} changes its logits after the output layer, so "
            f"the adapter in {folder} cannot share its weights; merge it (lora.merge=true)."
        )
    known = KnownIds(tokenizer, rows)
    if shared:
        known.size = rows
    return RewardPart(
        folder, model, known, min(len(tokenizer), rows), card.reads_log_probabilities, shared
    )


