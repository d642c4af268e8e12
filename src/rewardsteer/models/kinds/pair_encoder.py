"""Encoders that score a question and an answer as a sentence pair (OpenAssistant's DeBERTa)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rewardsteer.data.render import as_prompt
from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import paired
from rewardsteer.errors import CheckpointError, ConfigError
from rewardsteer.models.batching import batches
from rewardsteer.models.finite import require_finite
from rewardsteer.models.kinds.base import Kind
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.kinds.parts import load_parts
from rewardsteer.models.limits import check_lengths, position_limit
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt


class PairEncoderScorer(TextScorer, Kind):
    """The raw logit of a one-label classifier on an encoder (BERT, RoBERTa, DeBERTa, …).

    The question is the prompt; of a conversation, the contents of its turns joined by blank lines.

    Args:
        model: transformers' classifier, in evaluation mode.
        tokenizer: writes pairs.
        sign: 1, or -1 for models whose high values mean bad (the option ``negate``).
        name, fingerprint: see `TextScorer`.
    """

    summary = "one-label classifier on an encoder, of a sentence pair"

    def __init__(
        self, model: Any, tokenizer: Any, *, sign: float = 1.0, name: str = "",
        fingerprint: str = "",
    ) -> None:
        self._model, self.tokenizer, self._sign = model, tokenizer, sign
        self.name, self.fingerprint = name, fingerprint

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """See `TextScorer.score`; a prefix is scored as any text."""
        prompts, completions = paired(prompts, completions)
        rewards = np.empty(len(prompts))
        if not len(rewards):
            return rewards
        rows = self.tokenizer([_question(one) for one in prompts], list(completions))
        lengths = [len(ids) for ids in rows["input_ids"]]
        # Some encoders count positions from behind their padding token.
        limits = (position_limit(self._model.config), self.tokenizer.model_max_length)
        check_lengths(lengths, min(filter(None, limits)))
        for batch in batches(lengths, rows=batch_size, tokens=None):
            part = {name: [values[row] for row in batch] for name, values in rows.items()}
            padded = self.tokenizer.pad(part, return_tensors="pt").to(self._model.device)
            rewards[batch] = self._model(**padded).logits[:, 0].cpu().double().numpy()
        rewards *= self._sign
        require_finite(rewards)
        return rewards

    def provenance(self) -> dict[str, Any]:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return super().provenance() | {
            "template": "question and answer as a sentence pair", "dtype": dtype,
            "activation": "none",
        }

    @classmethod
    def recognises(cls, folder: FolderDescription) -> bool:
        """Whether a one-label classifier has an encoder's ``classifier`` head."""
        return has_one_label(folder) and is_encoder(folder)

    @classmethod
    def load(
        cls, folder: FolderDescription, *, template: Template | None, negate: bool = False,
        **options: Any,
    ) -> "PairEncoderScorer":
        from transformers import AutoModelForSequenceClassification

        if template is not None:
            raise ConfigError(
                f"The reward model {folder.name} scores question and answer as a sentence pair; "
                "leave out the template."
            )
        model, tokenizer, parts = load_parts(
            AutoModelForSequenceClassification, folder, kept=[""], **options
        )
        if model.config.num_labels != 1:
            raise CheckpointError(
                f"The reward model {folder.name} gives {model.config.num_labels} labels, expected "
                "one; name another kind."
            )
        return cls(model, tokenizer, sign=-1.0 if negate else 1.0, **parts)



def has_one_label(folder: FolderDescription) -> bool:
    """Whether it is a sequence classifier of transformers' with one label, whole and without a
    card of ours."""
    return (
        not folder.has_card and not folder.is_adapter and len(folder.labels) == 1
        and folder.architecture.endswith("ForSequenceClassification")
    )


def is_encoder(folder: FolderDescription) -> bool:
    """Whether a classifier's head is that of transformers' encoders, and not a decoder's
    ``score``."""
    return "score.weight" not in folder.tensors and any(
        name.startswith("classifier.") for name in folder.tensors
    )


def _question(prompt: Prompt) -> str:
    prompt = as_prompt(prompt)
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(message.content for message in prompt)
