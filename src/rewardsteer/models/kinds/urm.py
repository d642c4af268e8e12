"""URM (LxzGordon): means and variances of attributes, mixed by a gate that reads the same token."""

from typing import Any

import torch
from torch import Tensor, nn

from rewardsteer.data.template import Template
from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.heads.layers import Layer, WideLinear, as_module
from rewardsteer.models.kinds.attributes import AttributeScorer
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.headed import load_headed
from rewardsteer.models.kinds.stacks import find_heads, read_layers, read_tensors

_GATE = "weights.fc"


class GatedMeans(nn.Module):
    """Reward of a state: the sum over attributes of mean · gate, in float32.

    Args:
        means: layer of the K means.
        gate: layers of the K coefficients, with SELU between them.
    """

    def __init__(self, means: Layer, gate: list[Layer]) -> None:
        super().__init__()
        self.means = as_module([means])
        modules: list[nn.Module] = []
        for part in as_module(gate):
            modules.append(part if isinstance(part, WideLinear) else nn.SELU())
        self.gate = nn.Sequential(*modules)

    def forward(self, hidden: Tensor) -> Tensor:
        """Rewards ``[..., 1]`` of states ``[..., D]``."""
        return (self.means(hidden) * self.gate(hidden)).sum(dim=-1, keepdim=True)


class UrmScorer(AttributeScorer):
    """A sequence classifier with a mean and a variance per attribute and a gate over the means."""

    summary = "means of attributes mixed by a gate on the same token (URM)"

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`; there are no fixed weights."""
        told = super().provenance()
        told.pop("attribute_weights")
        return told | {"aggregation": "gate"}

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether its parts are there: ``score`` with 2K outputs, a gate with K."""
        score, gate = folder.shape("score.weight"), find_heads(folder, [_GATE])
        return (
            not folder.has_card and score is not None and len(gate) == 1
            and score[0] == 2 * gate[0].outputs
        )

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> "UrmScorer":
        if not cls.recognises(folder):
            raise CheckpointError(
                f"Expected URM's parts in {folder.name}: score.weight with 2K outputs and the "
                f"gate {_GATE} with K."
            )
        [gate] = find_heads(folder, [_GATE])
        # Even outputs are means, odd ones variances.
        means = Layer(read_tensors(folder.path, ["score.weight"])["score.weight"][0::2], None)
        model = load_headed(
            folder, [means], head_name="score", module=GatedMeans(means, read_layers(folder, gate)),
            **options,
        )
        names = folder.labels[0::2] if len(folder.labels) == 2 * gate.outputs else []
        return cls(
            model, load_tokenizer(folder.path), template or Template(), layers=[means],
            names=names or [f"attribute_{at}" for at in range(gate.outputs)],
            weights=torch.ones(gate.outputs), **folder.identity,
        )
