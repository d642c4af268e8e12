"""Heads of reward models, by name; one from elsewhere is named ``package.module:Class``."""

from rewardsteer.registry import Registry

HEADS = Registry(
    "head",
    {
        "scalar": "rewardsteer.models.heads.scalar:ScalarHead",
        "attributes": "rewardsteer.models.heads.attributes:AttributesHead",
        "vocabulary": "rewardsteer.models.heads.vocabulary:VocabularyHead",
    },
)
