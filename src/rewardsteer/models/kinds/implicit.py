"""Policies trained by DPO, as the reward models that they imply."""

from typing import Any

from rewardsteer.data.template import Template
from rewardsteer.models.implicit import ImplicitScorer
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.options import check_types


class ImplicitKind(Kind):
    """A policy and its reference (``reference=``, ``beta=``, ``reduction=``, ``reference_free=``).
    No folder says by itself that it is meant so."""

    summary = "log-ratio of a DPO policy and its reference"

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> ImplicitScorer:
        check_types(ImplicitScorer.load, options)
        return ImplicitScorer.load(folder.path, template=template, **options)
