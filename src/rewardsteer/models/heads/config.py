"""Which head a reward model gets. No torch here: recipes and checkpoint cards read it."""

from typing import Literal

from rewardsteer.configuration import Config

HeadKind = Literal["scalar", "vocabulary"]


class HeadConfig(Config):
    """The head put on a backbone.

    Attributes:
        kind: ``scalar`` gives one reward per prefix; ``vocabulary`` gives the reward of every
            one-token extension of a prefix in one call (FaRMA, arXiv 2502.04517).
        layers: for ``scalar``: ``linear`` (D → 1, no bias) or ``mlp`` (D → D/2 → D/2 → D → 1, ReLU;
            arXiv 2407.13887).
        init: for ``vocabulary``: ``lm_head`` starts from the language-model head, so that before
            any training the rewards *are* the policy's logits; ``zeros`` starts from no opinion.
    """

    kind: HeadKind = "scalar"
    layers: Literal["linear", "mlp"] = "linear"
    init: Literal["lm_head", "zeros"] = "lm_head"
