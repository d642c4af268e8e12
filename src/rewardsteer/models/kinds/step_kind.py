"""How process reward models are loaded: a class of transformers', and a head where the folder has
one of its own."""

from collections.abc import Sequence
from typing import Any, ClassVar

import transformers
from torch import nn

from rewardsteer.data.template import Template
from rewardsteer.models.heads.stacks import as_module
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import load_parts, no_template, own_options
from rewardsteer.models.kinds.stacks import FoundHead, read_layers
from rewardsteer.models.kinds.stepwise import StepScorer
from rewardsteer.models.loading import refuse_absent


class StepKind(Kind):
    """Base of the kinds that are `StepScorer`s.

    Attributes:
        scorer: called as ``scorer(model, tokenizer, *heads, name=…, fingerprint=…, **options)``.
        auto_class: transformers' class that loads the model.
        head: names of the layers of a head that the class does not know, and how many numbers it
            gives; it is read in float32 and passed to the scorer. None: there is none.
        head_biased: its layers have biases; else they may.
    """

    scorer: ClassVar[type[StepScorer]]
    auto_class: ClassVar[str] = "AutoModel"
    head: ClassVar[FoundHead | None] = None
    head_biased: ClassVar[bool] = True

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> StepScorer:
        """See `Kind.load`."""
        no_template(template, cls.scorer.kind)
        own, options = own_options(cls.scorer, options)
        kept = [] if cls.head is None else [f"{cls.head.name}.", "lm_head."]
        model, tokenizer, parts = load_parts(
            getattr(transformers, cls.auto_class), folder, kept=kept, **options
        )
        cls.check(folder, model)
        return cls.scorer(model, tokenizer, *cls._heads(folder, model), **parts, **own)

    @classmethod
    def check(cls, folder: FolderDescription, model: Any) -> None:
        """Raise `CheckpointError` on a model that is not of this kind."""

    @classmethod
    def has_head(cls, folder: FolderDescription) -> bool:
        """Whether the folder's weights hold the kind's head."""
        if cls.head is None:
            return False
        last = folder.shape(f"{cls.head.layers[-1]}.weight")
        return (
            last is not None and last[0] == cls.head.outputs
            and all(folder.shape(f"{name}.weight") is not None for name in cls.head.layers)
        )

    @classmethod
    def _heads(cls, folder: FolderDescription, model: Any) -> Sequence[nn.Module]:
        if cls.head is None:
            return []
        parts = ("weight", "bias") if cls.head_biased else ("weight",)
        names = [f"{layer}.{part}" for layer in cls.head.layers for part in parts]
        refuse_absent((name for name in names if name not in folder.tensors), folder.path)
        return [as_module(read_layers(folder, cls.head)).to(model.device).eval()]
