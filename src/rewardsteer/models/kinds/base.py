"""Kinds of reward models: how a folder of each is recognised and loaded."""

import abc
from typing import Any, ClassVar

import torch

from rewardsteer.data.template import Template
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.text_scorer import TextScorer


class Kind(abc.ABC):
    """A kind of reward model: one file with one class, named in `rewardsteer.models.kinds.KINDS`,
    or from elsewhere as ``package.module:Class``. It has class methods only.

    Attributes:
        summary: what it is, in a few words for messages and documents.
        in_folder: whether its models are folders or names on the hub; else the name is an address.
        compares: whether its models compare two responses and give no rewards
            (`rewardsteer.models.pair_scorer.PairScorer`).
    """

    summary: ClassVar[str] = ""
    in_folder: ClassVar[bool] = True
    compares: ClassVar[bool] = False

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether the folder is certainly of this kind; at most one kind may return True."""
        return False

    @classmethod
    def recognises_name(cls, name: str) -> bool:
        """Whether the name alone (an address, a file) shows that it is of this kind."""
        return False

    @classmethod
    @abc.abstractmethod
    def load(
        cls, folder: FolderDescription, *, device: str | torch.device,
        dtype: torch.dtype | None, template: Template | None, **options: Any,
    ) -> TextScorer:
        """The loaded model.

        Args:
            device: ``auto`` (CUDA, else MPS, else CPU) or torch's name.
            dtype: of the weights; None: as saved.
            template: given by the user; None: what the kind and its tokenizer say.
            options: the kind's own keyword arguments; the others go to ``from_pretrained``.

        Raises:
            CheckpointError: damaged, or not of this kind.
            ConfigError: there is no such device, or an option has a wrong value.
        """
