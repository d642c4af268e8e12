"""Which head a reward model gets. No torch here: recipes and checkpoint cards read it."""

from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from rewardsteer.configuration import Config
from rewardsteer.models.heads import CLASSIFIER_HEAD, HEADS, OPTIONS, Options

# Layers of few parameters beside the output layer.
_SMALL = ("low_rank", "embedding")


class HeadConfig(Config):
    """The head put on a backbone.

    Attributes:
        kind: a name of `rewardsteer.models.heads.HEADS`, or ``package.module:Class`` of a head from
            elsewhere. ``scalar`` gives one reward per prefix; ``vocabulary`` gives the reward of
            every one-token extension of a prefix in one call (FaRMA, arXiv 2502.04517);
            ``attributes`` gives several ratings and their weighted sum.
        attributes: for ``attributes``: names of at least two ratings, in order.
        weights: of the attributes in the reward, in the same order.
        layers: for ``scalar``: ``linear`` (D → 1, no bias) or ``mlp`` (D → D/2 → D/2 → D → 1, ReLU;
            arXiv 2407.13887). For ``vocabulary``: ``linear`` (the output layer, D → V),
            ``low_rank`` (D → r → V beside the output layer) or ``embedding`` (states times a matrix
            of rank r, times the frozen output embeddings), see `rewardsteer.models.heads.low_rank`.
        rank: r of ``low_rank`` and ``embedding``; 0 for ``embedding``: a full matrix.
        init: for ``vocabulary``: ``lm_head`` (the default of ``linear``) starts from the
            language-model head, so that before any training the rewards *are* the policy's logits
            (with a rank: their best approximation); ``zeros`` (the default of ``low_rank`` and
            ``embedding``) starts with all rewards 0. For ``scalar``: ``normal`` (the default) draws
            from N(0, 1/(D+1)) with 1/(D+1) as the variance, as in arXiv 2009.01325 and its
            predecessor's code; ``openrlhf`` takes 1/(D+1) as the standard deviation, as the code of
            arXiv 2407.13887 does.
    """

    kind: str = CLASSIFIER_HEAD
    attributes: list[str] = Field(default_factory=list)
    weights: list[float] = Field(default_factory=list)
    layers: Literal["linear", "mlp", "low_rank", "embedding"] = "linear"
    rank: int = Field(0, ge=0)
    init: Literal["lm_head", "zeros", "normal", "openrlhf"] = "lm_head"

    @property
    def head_class(self) -> Any:
        """The class of the head, a `rewardsteer.models.heads.base.Head`."""
        return HEADS.get(self.kind)

    @model_validator(mode="before")
    @classmethod
    def _first_init(cls, values: Any) -> Any:
        """The head's own default; cards of scalar heads used to say ``lm_head`` all the same."""
        if isinstance(values, dict) and values.get("layers") in _SMALL:
            values = {"init": "zeros"} | values
        if isinstance(values, dict) and values.get("init", "lm_head") == "lm_head":
            inits = _options(values.get("kind", CLASSIFIER_HEAD)).inits
            if inits is not None and "lm_head" not in inits:
                return values | {"init": inits[0]}
        return values

    @model_serializer(mode="wrap")
    def _present(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without attributes where the head has none: cards stay readable by earlier versions."""
        values: dict[str, Any] = handler(self)
        if not self.attributes:
            del values["attributes"], values["weights"]
        if not self.rank:
            del values["rank"]
        return values

    @property
    def outputs(self) -> int:
        """Outputs of the head's layer in a classifier."""
        return max(len(self.attributes), 1)

    @model_validator(mode="after")
    def _names_attributes(self) -> "HeadConfig":
        names, several = self.attributes, _options(self.kind).attributes
        if several and (len(set(names)) < 2 or self.layers != "linear"):
            raise ValueError(
                f"a head of kind {self.kind} is linear and needs attributes=[NAME, …], at least "
                f"two; for one rating take kind={CLASSIFIER_HEAD}"
            )
        if len(self.weights) != len(names) or len(set(names)) != len(names):
            raise ValueError(
                f"expected a weight for each of the different attributes, got {len(self.weights)} "
                f"for {', '.join(names) or 'none'}"
            )
        if several is False and names:
            raise ValueError(f"a {self.kind} head has no attributes; set kind=attributes")
        return self

    @model_validator(mode="after")
    def _has_rank(self) -> "HeadConfig":
        allowed = _options(self.kind).layers
        if allowed is not None and self.layers not in allowed:
            raise ValueError(
                f"a {self.kind} head has the layers {' or '.join(allowed)}, not {self.layers}"
            )
        if self.layers == "low_rank" and not self.rank:
            raise ValueError("a head with layers=low_rank needs a rank from 1 on")
        if self.rank and self.layers not in _SMALL:
            raise ValueError(
                f"a rank belongs to layers=low_rank or embedding, not to {self.layers}"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "HeadConfig":
        if self.kind not in HEADS:
            raise ValueError(f"unknown kind {self.kind!r}; known: {', '.join(HEADS.names())}")
        inits = _options(self.kind).inits
        if inits is not None and self.init not in inits:
            raise ValueError(
                f"a {self.kind} head starts as {' or '.join(inits)}, not as {self.init}"
            )
        return self


def _options(kind: object) -> Options:
    return OPTIONS.get(str(kind), Options())
