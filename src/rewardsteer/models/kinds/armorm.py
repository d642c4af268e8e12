"""ArmoRM (RLHFlow): attributes mixed by a gate that reads the end of the prompt."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rewardsteer.data.template import Template
from rewardsteer.data.text_ids import bare_ids
from rewardsteer.errors import CheckpointError, DataError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.finite import require_finite
from rewardsteer.models.heads.layers import Layer, as_module
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.headed import load_headed
from rewardsteer.models.kinds.stacks import find_heads, read_layers, read_tensors
from rewardsteer.models.limits import check_lengths, padding_id
from rewardsteer.models.reading import iter_hidden_states
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt

# The text whose last occurrence ends the prompt; the gate reads its first token.
_OPENINGS = {
    "llama": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma2": "<end_of_turn>\n<start_of_turn>model\n",
}
_NAMES = (
    "helpsteer-helpfulness", "helpsteer-correctness", "helpsteer-coherence",
    "helpsteer-complexity", "helpsteer-verbosity", "ultrafeedback-overall_score",
    "ultrafeedback-instruction_following", "ultrafeedback-truthfulness", "ultrafeedback-honesty",
    "ultrafeedback-helpfulness", "beavertails-is_safe", "prometheus-score",
    "argilla-overall_quality", "argilla-judge_lm", "code-complexity", "code-style",
    "code-explanation", "code-instruction-following", "code-readability",
)
_NEEDED = ("regression_layer.weight", "reward_transform_matrix", "gating.layers.0.weight")


class Gate(NamedTuple):
    """The gating network.

    Attributes:
        layers: of the state at the end of the prompt.
        temperature: of the softmax over their outputs.
        scale: of what it gives.
    """

    layers: nn.Module
    temperature: float
    scale: float

    def __call__(self, states: Tensor) -> Tensor:
        """Coefficients ``[R, K]`` of states ``[R, D]``."""
        return torch.softmax(self.layers(states) / self.temperature, dim=1) * self.scale


class ArmoScorer(TextScorer, Kind):
    """Scores whole texts with a regression layer over attributes and a gating network, on Llama or
    Gemma 2: score = sum over attributes of gate · (rewards · transform).

    Args:
        inner: gives tokens and states; its own reward is not used.
        attribute_layer: states to the K attributes, a linear layer.
        transform: ``[K, K]``, takes the weight of verbosity off the other attributes.
        gate: see `Gate`.
        opening: token ids whose last occurrence ends the prompt.
        names: of the attributes.
    """

    summary = "attributes mixed by a gate (ArmoRM)"

    def __init__(
        self, inner: Scorer, *, attribute_layer: nn.Module, transform: Tensor, gate: Gate,
        opening: list[int], names: Sequence[str],
    ) -> None:
        self.inner, self._attributes, self._transform = inner, attribute_layer, transform
        self._gate, self._opening, self.names = gate, opening, list(names)
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.tokenizer, self.template = inner.tokenizer, inner.template

    def to(self, device: torch.device | str) -> None:
        """See `TextScorer.to`; the two small heads stay on the CPU."""
        self.inner.to(device)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        rewards, gates = self._read(prompts, completions, batch_size, closed=closed)
        found = (gates * (rewards @ self._transform)).sum(dim=1).double().numpy()
        require_finite(found)
        return found

    def attributes(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16
    ) -> dict[str, np.ndarray]:
        """Each attribute's values ``[N]`` (float64), raw, in the order of the rows."""
        rewards, _ = self._read(prompts, completions, batch_size, closed=True)
        values = rewards.double().numpy()
        return {name: values[:, at] for at, name in enumerate(self.names)}

    @torch.no_grad()
    def _read(
        self, prompts: Sequence[Prompt], completions: Sequence[str], batch_size: int, *,
        closed: bool,
    ) -> tuple[Tensor, Tensor]:
        """Attributes and gates, both ``[N, K]``."""
        before, behind = self.inner.encode(prompts, completions, closed=closed)
        whole = [[*p, *r] for p, r in zip(before, behind, strict=True)]
        check_lengths(map(len, whole), self.inner.position_limit)
        ends = [self._end(row, number) for number, row in enumerate(whole, start=1)]
        shape = (len(before), len(self.names))
        rewards, gates = torch.empty(shape), torch.empty(shape)
        # Whole rows: the end of the prompt is read too.
        for read in iter_hidden_states(
            self.inner.reward_model, before, behind, batch_size=batch_size, batch_tokens=None,
            share=False,
        ):
            places = torch.tensor([ends[row] for row in read.rows], device=read.hidden.device)
            rows = torch.arange(len(read.rows), device=read.hidden.device)
            rewards[read.rows] = self._attributes(read.last_states.cpu())
            gates[read.rows] = self._gate(read.hidden[rows, places].cpu())
        return rewards, gates

    def _end(self, ids: list[int], number: int) -> int:
        size = len(self._opening)
        for at in range(len(ids) - size, -1, -1):
            if ids[at : at + size] == self._opening:
                return at
        raise DataError(
            f"Row {number} has no opened assistant turn, where the gate of {self.name} reads the "
            "prompt; use the chat template of its tokenizer."
        )

    def provenance(self) -> dict[str, Any]:
        return self.inner.provenance() | super().provenance() | {"aggregation": "gate"}

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether all its parts are there."""
        return not folder.has_card and all(name in folder.tensors for name in _NEEDED)

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> "ArmoScorer":
        gating = next(iter(find_heads(folder, ["gating.layers"])), None)
        opening = _OPENINGS.get(str(folder.config.get("model_type")))
        if gating is None or opening is None or not cls.recognises(folder):
            raise CheckpointError(
                f"Expected ArmoRM's parts ({', '.join(_NEEDED)}) on a Llama or Gemma 2 in "
                f"{folder.name}."
            )
        parts = read_tensors(folder.path, [*_NEEDED[:2], *_scale(folder)])
        layer = Layer(parts["regression_layer.weight"], None)
        model = load_headed(folder, [Layer(layer.weight[:1], None)], head_name=None, **options)
        tokenizer = load_tokenizer(folder.path)
        scorer = Scorer(
            model, tokenizer, template or Template(), unread_id=padding_id(model.config),
            **folder.identity,
        )
        return cls(
            scorer, attribute_layer=as_module([layer]),
            transform=parts["reward_transform_matrix"],
            gate=Gate(
                as_module(read_layers(folder, gating)),
                float(folder.config.get("gating_temperature", 10)),
                float(parts["gating.logit_scale"][0]) if _scale(folder) else 1.0,
            ),
            opening=bare_ids(opening, tokenizer),
            names=_attribute_names(folder, layer.weight.shape[0]),
        )



def _scale(folder: FolderDescription) -> list[str]:
    return [name for name in ("gating.logit_scale",) if name in folder.tensors]


def _attribute_names(folder: FolderDescription, count: int) -> list[str]:
    if count == len(_NAMES):
        return list(_NAMES)
    named = folder.labels
    return named if len(named) == count else [f"attribute_{at}" for at in range(count)]
