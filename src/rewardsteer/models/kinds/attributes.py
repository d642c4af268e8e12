"""Classifiers with several outputs: attributes such as helpfulness, combined to one reward."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rewardsteer.data.template import Template, stored_template
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.checkpoint import load_tokenizer, read_card
from rewardsteer.models.finite import require_finite
from rewardsteer.models.heads.layers import Layer, as_module
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.headed import load_headed
from rewardsteer.models.kinds.stacks import FoundHead, combined, only_head, read_layers
from rewardsteer.models.limits import padding_id
from rewardsteer.models.scorer import Scorer
from rewardsteer.records import Prompt

# The usual scalar of HelpSteer's five attributes (SteerLM, Nemotron-4-340B-Reward).
HELPSTEER = {
    "helpfulness": 0.3, "correctness": 0.74, "coherence": 0.46, "complexity": 0.47,
    "verbosity": -0.33,
}

Weights = Mapping[str, float] | Sequence[float]


class AttributeScorer(Scorer, Kind):
    """A classifier with two or more outputs on a decoder. The reward is the weighted sum of its raw
    outputs, never a softmax or a maximum.

    Options:
        attribute: the name of the one output that is the reward.
        weights: of the outputs, by name (others 0) or one each in order. Without either, a model
            trained with rewardsteer has the weights of its training, two outputs are a binary
            classifier (second minus first logit), and outputs named as HelpSteer's attributes have
            the published weights; all others are refused.

    Args:
        model, tokenizer, template, options: as `Scorer`.
        layers: of the head that gives all attributes.
        names: of the attributes.
        weights: of the attributes in the reward.
    """

    summary = "classifier with several outputs on a decoder (attributes)"

    def __init__(
        self, model: Any, tokenizer: Any, template: Template, *, layers: list[Layer],
        names: Sequence[str], weights: torch.Tensor, **options: Any,
    ) -> None:
        super().__init__(model, tokenizer, template, **options)
        self.names, self.weights = list(names), weights
        self._outputs = as_module(layers).to(model.device).eval()

    @torch.no_grad()
    def attributes(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16
    ) -> dict[str, np.ndarray]:
        """Each attribute's values ``[N]`` (float64), raw, in the order of the rows.

        Raises:
            DataError, NonFiniteError: see `TextScorer.score`.
        """
        prompt_ids, response_ids = self.encode(prompts, completions)
        found = np.empty((len(prompt_ids), len(self.names)))
        for read in self.read(prompt_ids, response_ids, batch_size=batch_size):
            values = self._outputs(read.last_states.to(self._place))
            found[read.rows] = values.cpu().double().numpy()
        for column in found.T:
            require_finite(column)
        return {name: found[:, at] for at, name in enumerate(self.names)}

    @property
    def _place(self) -> torch.device:
        return next(self._outputs.parameters()).device

    def provenance(self) -> dict[str, Any]:
        """See `TextScorer.provenance`; with the weights of the attributes."""
        weights = dict(zip(self.names, map(float, self.weights), strict=True))
        return super().provenance() | {"attribute_weights": weights}

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether a sequence classifier's ``score`` has several outputs."""
        shape = folder.shape("score.weight")
        return (
            not folder.is_adapter and shape is not None and shape[0] > 1
            and folder.architecture.endswith("ForSequenceClassification")
            and not any(name.startswith(("gating.", "weights.")) for name in folder.tensors)
        )

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, attribute: str | None = None,
        weights: Weights | None = None, **options: Any,
    ) -> "AttributeScorer":
        """See `Kind.load`.

        Raises:
            ConfigError: an unknown attribute, weights that do not fit, or neither is given where
                the outputs do not say how they are combined.
        """
        head = only_head(folder, several=True)
        names = _names(folder, head)
        card = read_card(folder.path) if folder.has_card else None
        if card is not None:
            template = template or stored_template(card.template)
            if attribute is None and weights is None:
                weights = card.head.weights
        chosen = choose_weights(names, attribute, weights, folder.name)
        layers = read_layers(folder, head)
        model = load_headed(folder, combined(layers, chosen), head_name=head.name, **options)
        return cls(
            model, load_tokenizer(folder.path), template or Template(), layers=layers, names=names,
            weights=chosen, objective="" if card is None else card.objective,
            unread_id=padding_id(model.config), **folder.identity,
        )



def choose_weights(
    names: Sequence[str], attribute: str | None, weights: Weights | None, model: str
) -> torch.Tensor:
    """Weights ``[k]`` of the outputs in the reward, see `AttributeScorer`.

    Raises:
        ConfigError: they do not fit the outputs, or none are given and none are known.
    """
    known = ", ".join(names)
    if attribute is not None and weights is not None:
        raise ConfigError("Give either attribute= or weights=, not both.")
    if attribute is not None:
        weights = {attribute: 1.0}
    if isinstance(weights, Mapping):
        unknown = sorted(set(weights) - set(names))
        if unknown or not weights:
            raise ConfigError(
                f"The reward model {model} has no attribute {', '.join(unknown) or '(none)'}; it "
                f"has {known}."
            )
        weights = [weights.get(name, 0.0) for name in names]
    if weights is not None:
        numbers = [*weights] if isinstance(weights, Sequence) else []
        if len(numbers) != len(names) or not all(map(_is_number, numbers)):
            raise ConfigError(
                f"Expected weights= as one number for each of {known}, or by name; got {weights!r}."
            )
        return torch.tensor([float(one) for one in numbers])
    if len(names) == 2:
        return torch.tensor([-1.0, 1.0])
    plain = [_plain(name) for name in names]
    if len(set(plain)) == len(plain) and HELPSTEER.keys() <= set(plain):
        return torch.tensor([HELPSTEER.get(name, 0.0) for name in plain])
    raise ConfigError(
        f"The reward model {model} has {len(names)} outputs ({known}) and does not say how they "
        "are combined; pass attribute=NAME or weights={NAME: WEIGHT, …}."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(name: str) -> str:
    return name.lower().removeprefix("helpsteer-").removeprefix("helpsteer2-")


def _names(folder: FolderDescription, head: FoundHead) -> list[str]:
    names = folder.labels
    if len(names) != head.outputs or len(set(names)) != len(names):
        raise CheckpointError(
            f"The head of {folder.name} has {head.outputs} outputs, its configuration names "
            f"{len(names)} ({', '.join(names)})."
        )
    return names
