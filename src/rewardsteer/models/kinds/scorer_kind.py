"""Kinds that are scorers themselves: one class says how a folder is loaded and how it scores."""

from typing import Any, ClassVar

import torch
import transformers

from rewardsteer.data.template import Template
from rewardsteer.models.heads.layers import as_module
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import load_parts, no_template, own_options
from rewardsteer.models.kinds.stacks import FoundHead, read_layers
from rewardsteer.models.loading import refuse_absent
from rewardsteer.models.text_scorer import TextScorer


class ScorerKind(TextScorer, Kind):
    """Base of these kinds. An object is made as ``cls(model, tokenizer, name=…, fingerprint=…,
    **options)``, with ``head=`` where the folder has a head that transformers does not know.

    Attributes:
        auto_class: transformers' class that loads the model.
        published_head: names of the layers of such a head, and how many numbers it gives; None:
            there is none.
        biased_head: its layers have biases; else they may.
    """

    auto_class: ClassVar[str] = "AutoModel"
    published_head: ClassVar[FoundHead | None] = None
    biased_head: ClassVar[bool] = True

    @classmethod
    def load(cls, folder: FolderDescription, *, template: Template | None, **options: Any) -> Any:
        """See `Kind.load`; there is no template, because the form of the texts is fixed."""
        no_template(template, cls.kind)
        cls.check(folder)
        own, options = own_options(cls, options)
        head = cls.published_head
        model, tokenizer, parts = load_parts(
            getattr(transformers, cls.auto_class), folder,
            kept=[] if head is None else [f"{head.name}.", "lm_head."], **options,
        )
        if head is not None:
            parts |= {"head": cls._read_head(folder, head, model.device)}
        made: Any = cls
        return made(model, tokenizer, **parts, **own)

    @classmethod
    def check(cls, folder: FolderDescription) -> None:
        """Raise `CheckpointError` on a folder that is not of this kind."""

    @classmethod
    def has_head(cls, folder: FolderDescription) -> bool:
        """Whether the folder's weights hold the kind's head."""
        head = cls.published_head
        if head is None:
            return False
        last = folder.shape(f"{head.layers[-1]}.weight")
        return (
            last is not None and last[0] == head.outputs
            and all(folder.shape(f"{name}.weight") is not None for name in head.layers)
        )

    @classmethod
    def _read_head(
        cls, folder: FolderDescription, head: FoundHead, device: torch.device
    ) -> torch.nn.Module:
        """The head in float32."""
        parts = ("weight", "bias") if cls.biased_head else ("weight",)
        names = [f"{layer}.{part}" for layer in head.layers for part in parts]
        refuse_absent((name for name in names if name not in folder.tensors), folder.path)
        return as_module(read_layers(folder, head)).to(device).eval()
