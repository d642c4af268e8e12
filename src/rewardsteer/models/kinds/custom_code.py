"""Reward models whose folder brings the Python code that computes them, where the user trusts it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardsteer.data.template import Template, resolve
from rewardsteer.data.tokenize import encode_rows, paired
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.finite import require_finite
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import load_parts
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt

# Classes by which such models are published, in the order they are looked for.
_CLASSES = ("AutoModelForSequenceClassification", "AutoModel")


class CustomCodeScorer(TextScorer, Kind):
    """The one number that a model of its own code (``auto_map``) returns for a row: ``score``, else
    ``logits``, else its first output. Rows are scored one by one, because such code may take the
    reward at another token when there is padding. A configuration with ``reward_token_id``
    (InternLM2-Reward) has that token at the end of each row, appended where it is not.

    The kind is chosen where the user passes ``trust_remote_code=True`` and no other kind recognises
    the folder.

    Args:
        model: in evaluation mode.
        tokenizer, template: write the rows.
        name, fingerprint: see `TextScorer`.
    """

    summary = "computed by Python code of its own"

    def __init__(
        self, model: Any, tokenizer: Any, template: Template, *, name: str = "",
        fingerprint: str = "",
    ) -> None:
        self._model, self.tokenizer = model, tokenizer
        self.template: Template = resolve(template, tokenizer)
        self.name, self.fingerprint = name, fingerprint

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        prompts, completions = paired(prompts, completions)
        template = self.template if closed else self.template.unclosed()
        rows = encode_rows(prompts, completions, template, self.tokenizer)
        rewards = np.empty(len(rows))
        for number, row in enumerate(rows):
            ids = torch.tensor([self._ended(row.from_token(0))], device=self._model.device)
            output = self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
            rewards[number] = self._number(output)
        require_finite(rewards)
        return rewards

    def _ended(self, ids: list[int]) -> list[int]:
        token = getattr(self._model.config, "reward_token_id", None)
        return ids if token is None or ids[-1:] == [token] else [*ids, token]

    def _number(self, output: Any) -> float:
        found = output if isinstance(output, Tensor) else None
        for name in ("score", "logits"):
            found = getattr(output, name, None) if found is None else found
        found = output[0] if found is None else found
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CheckpointError(
                f"Expected one number per row from the code of {self.name}, got {shape}."
            )
        return float(found)

    def provenance(self) -> dict[str, Any]:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return super().provenance() | {"dtype": dtype, "code": type(self._model).__name__}

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, **options: Any
    ) -> "CustomCodeScorer":
        import transformers

        name = code_class(folder)
        if name is None:
            raise CheckpointError(
                f"Expected Python code for {' or '.join(_CLASSES)} (auto_map) in {folder.name}."
            )
        if not folder.trusted:
            raise ConfigError(
                f"{code_sentence(folder)}; if you trust it, pass trust_remote_code=True."
            )
        # Weights that the class does not know are left to its code.
        model, tokenizer, parts = load_parts(
            getattr(transformers, name), folder, kept=[""], own_code=True, **options
        )
        return cls(model, tokenizer, template or Template(), **parts)


def code_class(folder: FolderDescription) -> str | None:
    """The class of transformers that the folder's own code stands for; None without such code."""
    code = folder.config.get("auto_map")
    if not isinstance(code, dict):
        return None
    return next((name for name in _CLASSES if name in code), None)


def code_sentence(folder: FolderDescription) -> str:
    """What a refusal says of the folder's code; without a full stop."""
    code = folder.config.get("auto_map")
    places = sorted({str(place) for place in code.values()}) if isinstance(code, dict) else []
    return (
        f"The model {folder.name} is computed by Python code of its own "
        f"({', '.join(places) or 'none named'}), which is not run"
    )
