"""Skywork-o1-Open-PRM: a language model with a value head, read behind each step.

Question and steps are tokenized apart: beginning of text, question and a newline, then each step
followed by the newline's token. The value of a step is the sigmoid of the head at that token.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rewardsteer.data.template import Template
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import (
    load_parts,
    no_template,
    own_options,
    question_of,
    read_weights,
)
from rewardsteer.models.kinds.stepwise import EncodedSteps, StepScorer
from rewardsteer.records import Prompt

_HEAD = ("v_head.summary.weight", "v_head.summary.bias")


class SkyworkPrm(StepScorer):
    """σ(v·h + b) at the separator's token behind each step.

    Args:
        model: the backbone.
        tokenizer: the model's.
        head: states ``[N, D]`` to values ``[N, 1]``.
        separator: the text whose last token follows each step.
        options: see `StepScorer`.
    """

    kind = "skywork_prm"
    published_split: ClassVar[str] = "\n"

    def __init__(
        self, model: Any, tokenizer: Any, head: nn.Module, *, separator: str = "\n", **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.head = head
        self.separator = separator
        self._separator_id = tokenizer(separator)["input_ids"][-1]

    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """Question and steps, tokenized apart."""
        question = (self.tokenizer.bos_token or "") + question_of(prompt, self.kind) + "\n"
        ids = list(self.tokenizer(question)["input_ids"])
        columns = []
        for step in steps:
            ids += [*self.tokenizer(step)["input_ids"], self._separator_id]
            columns.append(len(ids) - 1)
        return EncodedSteps(ids, columns)

    def step_values(self, ids: Tensor, mask: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Sigmoids of the value head."""
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        values: Tensor = self.head(hidden[rows, columns].float())[:, 0].sigmoid()
        return values

    def provenance(self) -> dict[str, Any]:
        """See `StepScorer.provenance`."""
        return super().provenance() | {
            "activation": "sigmoid", "separator": self.separator,
        }


class SkyworkPrmKind(Kind):
    """See `SkyworkPrm`."""

    summary = "process reward model as Skywork-o1-Open-PRM: value head and sigmoid"

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """A value head of one layer under an architecture that is named as a PRM."""
        return (
            "prm" in folder.architecture.lower()
            and folder.shape("v_head.summary.weight") is not None
        )

    @classmethod
    def load(
        cls, folder: FolderDescription, *, device: str | torch.device,
        dtype: torch.dtype | None, template: Template | None, **options: Any,
    ) -> SkyworkPrm:
        """See `Kind.load`."""
        from transformers import AutoModel

        no_template(template, SkyworkPrm.kind)
        own, options = own_options(SkyworkPrm, options)
        model, tokenizer, parts = load_parts(
            AutoModel, folder.path, device=device, dtype=dtype, kept=("v_head.", "lm_head."),
            **options,
        )
        weights = read_weights(folder.path, _HEAD)
        head = nn.Linear(weights[_HEAD[0]].shape[1], 1)
        head.load_state_dict({
            name.removeprefix("v_head.summary."): value.float() for name, value in weights.items()
        })
        return SkyworkPrm(model, tokenizer, head.to(model.device).eval(), **parts, **own)
