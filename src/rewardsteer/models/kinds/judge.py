"""Generative judges behind an OpenAI-compatible address."""

from typing import Any

import torch

from rewardsteer.data.template import Template
from rewardsteer.errors import ConfigError
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.options import check_options
from rewardsteer.models.remote.judge import JudgeScorer


class JudgeKind(Kind):
    """A language model that gives responses a score. Options are those of `JudgeScorer`, of which
    ``model`` is needed."""

    summary = "language model behind an address that scores responses"
    in_folder = False

    @classmethod
    def load(
        cls, folder: FolderDescription, *, device: str | torch.device,
        dtype: torch.dtype | None, template: Template | None, **options: Any,
    ) -> JudgeScorer:
        """See `Kind.load`; device and dtype are the server's own."""
        check_options(JudgeScorer, options, "a judge")
        if template is not None:
            raise ConfigError(
                "A judge reads texts in its own prompt and takes no template; pass prompt=."
            )
        if "model" not in options:
            raise ConfigError("A judge needs its model's name at the address; pass model=.")
        return JudgeScorer(folder.name, **options)
