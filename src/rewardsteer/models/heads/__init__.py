"""Heads of reward models, by name; one from elsewhere is named ``package.module:Class``."""

from typing import NamedTuple

from rewardsteer.registry import Registry


class Options(NamedTuple):
    """What the settings of a head may be. It stands here and not in the head's class because
    settings are read without importing torch.

    Attributes:
        layers, inits: values of `HeadConfig.layers` and `HeadConfig.init`; the first of ``inits``
            is the default. None: any.
        attributes: whether the head rates several attributes, which its settings then name.
    """

    layers: tuple[str, ...] | None = None
    inits: tuple[str, ...] | None = None
    attributes: bool | None = None


HEADS = Registry(
    "head",
    {
        "scalar": "rewardsteer.models.heads.scalar:ScalarHead",
        "attributes": "rewardsteer.models.heads.attributes:AttributesHead",
        "vocabulary": "rewardsteer.models.heads.vocabulary:VocabularyHead",
    },
    classes=["rewardsteer.models.heads.base:Head"],
)
OPTIONS = {
    "scalar": Options(("linear", "mlp"), ("normal", "openrlhf"), attributes=False),
    "attributes": Options(("linear",), ("normal", "openrlhf"), attributes=True),
    "vocabulary": Options(
        ("linear", "low_rank", "embedding"), ("lm_head", "zeros"), attributes=False
    ),
}
# The head of a one-label sequence classifier, and that of a causal language model whose output
# layer gives rewards.
CLASSIFIER_HEAD, LANGUAGE_MODEL_HEAD = "scalar", "vocabulary"
