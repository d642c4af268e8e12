"""Process reward models: one forward pass gives one value per step."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rewardsteer.data.tokenize import paired
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.models.aggregation import (
    SEPARATOR,
    aggregate_steps,
    check_aggregation,
    check_steps,
    split_steps,
)
from rewardsteer.models.backbone import accepts
from rewardsteer.models.batching import batches, right_pad
from rewardsteer.models.finite import require_finite
from rewardsteer.models.kinds.scorer_kind import ScorerKind
from rewardsteer.models.limits import check_length, position_limit
from rewardsteer.models.text_scorer import require_steps
from rewardsteer.records import Prompt


class EncodedSteps(NamedTuple):
    """A solution as token ids, and for each step the column of its value."""

    ids: list[int]
    columns: list[int]


class StepScorer(ScorerKind):
    """A process reward model: a language model that judges each step of a solution.

    Args:
        model: the Hugging Face model, in evaluation mode and on its device.
        tokenizer: the one it was trained with.
        name: folder or other name, for messages.
        fingerprint: of the weights; "" when unknown.
        head: states ``[N, D]`` of the model to outputs ``[N, K]``; None: the model's logits are
            the outputs.
        split: text between two steps of a completion, at which `score` divides it; None: the kind's
            own.
        aggregate: how the values of the steps become one reward, see `models.aggregation`; None: as
            published for the kind.

    Attributes:
        published_split, published_aggregate: the kind's own.
        activation: how outputs become values.
        noted: attributes that result files name.
    """

    published_split: ClassVar[str] = SEPARATOR
    published_aggregate: ClassVar[str] = "min"
    activation: str
    noted: ClassVar[tuple[str, ...]] = ("activation",)

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str = "", fingerprint: str = "",
        head: nn.Module | None = None, split: str | None = None, aggregate: str | None = None,
    ) -> None:
        self.model, self.tokenizer, self.head = model, tokenizer, head
        self.name, self.fingerprint = name, fingerprint
        self.split = self.published_split if split is None else split
        if not self.split:
            raise ConfigError("split must be the text between two steps, got an empty one.")
        self.aggregate = check_aggregation(aggregate or self.published_aggregate)

    # --- defined by each kind ---------------------------------------------------------------------

    @abc.abstractmethod
    def encode_steps(self, prompt: Prompt, steps: Sequence[str]) -> EncodedSteps:
        """The tokens of a solution, as published for the kind.

        Raises:
            DataError: a step holds what marks the end of steps, or the prompt has another form.
        """

    @abc.abstractmethod
    def values(self, outputs: Tensor) -> Tensor:
        """Values ``[N]`` of steps from the outputs ``[N, K]`` (float32 or wider) at their ends."""

    # --- scoring ----------------------------------------------------------------------------------

    @torch.no_grad()
    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]], *, batch_size: int = 16
    ) -> list[np.ndarray]:
        """One float64 value per step of each solution, in one forward pass.

        Raises:
            DataError: no step, an empty one, one that holds the kind's separator, or a solution
                longer than the model reads.
            NonFiniteError: a value is NaN or infinite.
        """
        encoded = self._encode(prompts, steps)
        found: list[np.ndarray] = [np.empty(0)] * len(encoded)
        lengths = [len(one.ids) for one in encoded]
        for batch in batches(lengths, rows=batch_size, tokens=None):
            values = self._read([encoded[row] for row in batch])
            counts = [len(encoded[row].columns) for row in batch]
            for row, part in zip(batch, values.split(counts), strict=True):
                found[row] = part.cpu().double().numpy()
        for row, part in enumerate(found, start=1):
            require_finite(part, [row] * len(part))
        return found

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """Rewards ``[N]`` (float64): the values of each completion's steps, aggregated.

        The last step of a completion that may go on (``closed=False``) is judged as it stands.

        Raises:
            DataError, NonFiniteError: as `step_scores`.
        """
        prompts, completions = paired(prompts, completions)
        steps = [self.split_steps(text) for text in completions]
        values = self.step_scores(prompts, steps, batch_size=batch_size)
        return np.array([aggregate_steps(one, self.aggregate) for one in values], dtype=np.float64)

    def split_steps(self, completion: str) -> list[str]:
        """The steps of a completion; a text without the separator is one step."""
        return split_steps(completion, self.split)

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {
            "split": self.split, "aggregation": self.aggregate,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        } | {name: getattr(self, name) for name in self.noted}

    def _encode(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]
    ) -> list[EncodedSteps]:
        require_steps(prompts, steps)
        limit, encoded = position_limit(self.model.config), []
        for row, (prompt, own) in enumerate(zip(prompts, steps, strict=True), start=1):
            check_steps(own, row)
            try:
                one = self.encode_steps(prompt, own)
            except DataError as error:
                raise DataError(f"Row {row}: {error}") from error
            check_length(
                row, len(one.ids), limit, reader=self.name, parts="its prompt or its steps"
            )
            encoded.append(one)
        return encoded

    def _read(self, batch: Sequence[EncodedSteps]) -> Tensor:
        ids, mask = right_pad([one.ids for one in batch])
        rows = torch.tensor([row for row, one in enumerate(batch) for _ in one.columns])
        columns = torch.tensor([column for one in batch for column in one.columns])
        device = self.model.device
        options = {"use_cache": False} if accepts(self.model, "use_cache") else {}
        output = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), **options)
        read = output.logits if self.head is None else output.last_hidden_state
        outputs = read[rows.to(device), columns.to(device)].float()
        return self.values(outputs if self.head is None else self.head(outputs))
