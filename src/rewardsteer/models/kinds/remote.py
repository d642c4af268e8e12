"""Reward models behind an address."""

from typing import Any

import torch

from rewardsteer.addresses import is_address
from rewardsteer.data.template import Template
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.options import check_options
from rewardsteer.models.remote.scorer import RemoteScorer


class RemoteKind(Kind):
    """A server of rewards: ours, vLLM, SGLang, or one of OpenRLHF's form. Options are those of
    `RemoteScorer`."""

    summary = "reward model behind an address"
    in_folder = False

    @classmethod
    def recognises_name(cls, name: str) -> bool:
        """Whether it is an address."""
        return is_address(name)

    @classmethod
    def load(
        cls, folder: FolderDescription, *, device: str | torch.device,
        dtype: torch.dtype | None, template: Template | None, **options: Any,
    ) -> RemoteScorer:
        """See `Kind.load`; device and dtype are the server's own."""
        check_options(RemoteScorer, options, "a reward model behind an address")
        return RemoteScorer(folder.name, template=template, **options)
