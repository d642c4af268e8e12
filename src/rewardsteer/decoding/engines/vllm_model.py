"""A policy and its reward models as one vLLM model.

One forward pass runs all of them on the same tokens. So vLLM keeps the keys and values of each in
its paged cache, and chunked prefill, prefix caching, preemption, memory planning, CUDA graphs,
tensor parallelism and quantisation are its own.

Shapes: N tokens of a step, B rows that are sampled, D hidden sizes side by side, V a vocabulary.
"""

import itertools
import string
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rewardsteer.models.known_ids import KnownIds

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_REWARDS = "rewards"


class RewardGuidedForCausalLM(nn.Module):
    """vLLM's model of the policy, and one for each reward model.

    Hidden states are those of all models side by side ``[N, D]``. Logits are the policy's; the
    sampled rows' states of the reward models are kept until the logits processor asks for their
    rewards (`reward_logits`), so that a step in which no row asks computes none.

    Without a prefix cache, a step in which no running request asks runs the policy alone: the
    reward models' keys and values of its tokens are never used.

    Attributes:
        failed: why guidance failed, by the request's name (``reward_name``).
        asked: whether some running request is guided; True by default.
    """

    def __init__(self, *, vllm_config: "VllmConfig", prefix: str = "") -> None:
        from rewardsteer.decoding.engines.vllm_parts import build_policy, build_reward
        from rewardsteer.decoding.engines.vllm_settings import ENTRY, read_settings

        super().__init__()
        folders = read_settings(vllm_config.model_config.hf_config).folders
        self.policy: Any = build_policy(vllm_config, prefix)
        # Letters, because vLLM takes the one number in a layer's name for its index.
        keys = string.ascii_lowercase
        self.parts = [
            build_reward(vllm_config, self.policy, folder, f"{_REWARDS}.{key}")
            for key, folder in zip(keys, folders.values(), strict=False)
        ]
        self.rewards = nn.ModuleDict(
            {key: part.model for key, part in zip(keys, self.parts, strict=False)}
        )
        self.failed: dict[str, str] = {}
        self.asked = True
        # Data-parallel engines take their steps together, whatever each of them has to do.
        self._skips = not vllm_config.cache_config.enable_prefix_caching and (
            vllm_config.parallel_config.data_parallel_size == 1
        )
        self._most = vllm_config.scheduler_config.max_num_batched_tokens
        self._ids: Tensor | None = None
        self._widths: list[int] = []
        self._states: list[Tensor] = []
        # vLLM's registry of objects that are looked up from outside a model's code.
        vllm_config.compilation_config.static_forward_context[ENTRY] = self

    @property
    def secondary_weights(self) -> list[Any]:
        """Where vLLM's loader finds the weights of the reward models."""
        from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

        return [
            DefaultModelLoader.Source(
                str(part.folder), None, prefix=f"{_REWARDS}.{key}.", fall_back_to_pt=False,
                allow_patterns_overrides=[part.files],
            )
            for key, part in zip(self.rewards, self.parts, strict=True)
        ]

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """The policy's embeddings."""
        embeddings: Tensor = self.policy.embed_input_ids(input_ids)
        return embeddings

    def forward(
        self, input_ids: Tensor, positions: Tensor, intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Hidden states ``[N, D]`` of all models side by side."""
        # Copies: a model whose pieces run as CUDA graphs returns memory of vLLM's graph pool, in
        # which the graphs of the next model compute.
        states = [self.policy(input_ids, positions).clone()]
        if self._skips and self._widths and not self.asked:
            return pad(states[0], (0, sum(self._widths[1:])))
        for part in self.parts:
            states.append(part.model(self._known_ids(input_ids, part.known), positions).clone())
        self._widths = [one.shape[-1] for one in states]
        return torch.cat(states, dim=-1)

    def _known_ids(self, input_ids: Tensor, known: KnownIds) -> Tensor:
        """Ids ``[N]``, unknown ones replaced, always at one place in memory: CUDA graphs read their
        inputs where these were at capture. vLLM's first pass, before any capture, is the longest.
        """
        count = len(input_ids)
        if self._ids is None or len(self._ids) < count:
            self._ids = input_ids.new_empty(max(count, self._most))
        strange = (input_ids < 0) | (input_ids >= known.size)
        return self._ids[:count].copy_(input_ids).masked_fill_(strange, known.stand_in)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """Logits ``[B, V]`` of the policy from states ``[B, D]``."""
        own, *self._states = hidden_states.split(self._widths, dim=-1)
        logits: Tensor | None = self.policy.compute_logits(own.contiguous())
        return logits

    def reward_logits(self, place: int, rows: Tensor | slice) -> Tensor:
        """Rewards ``[R, V]`` of all next tokens of some rows of those whose logits were computed
        last.

        Args:
            place: of the reward model.
            rows: ``[R]`` indices, or a slice.
        """
        states = self._states[place][rows]
        rewards: Tensor = self.parts[place].model.compute_logits(states.contiguous())
        return rewards

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str] | None:
        """Give each model its weights; those of reward models begin with ``rewards.``."""
        owners = {f"{_REWARDS}.{key}.": part for key, part in zip(
            self.rewards, self.parts, strict=True
        )}
        loaded: set[str] = set()
        for prefix, group in itertools.groupby(weights, key=lambda item: _prefix(item[0], owners)):
            own = ((name.removeprefix(prefix), weight) for name, weight in group)
            names = owners.get(prefix, self.policy).load_weights(own)
            if names is None:
                return None
            loaded |= {(prefix or "policy.") + name for name in names}
        return loaded


def _prefix(name: str, owners: Iterable[str]) -> str:
    """The prefix of a weight's reward model; "": the policy's weight."""
    return next((prefix for prefix in owners if name.startswith(prefix)), "")
