"""The reward model under examination, with the data that several checks use."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import encode_rows
from rewardsteer.doctor.samples import Samples
from rewardsteer.errors import DataError
from rewardsteer.models.kinds.folder import FolderDescription
from rewardsteer.models.text_scorer import TextScorer

# Rewards that differ by less are equal: absolute, and relative to the reward.
_SINGLE, _HALF = (1e-4, 1e-4), (0.06, 0.03)


@dataclass(frozen=True)
class Address:
    """A server that is compared.

    Attributes:
        api: its kind of API, see `rewardsteer.models.remote.scorer.RemoteScorer`.
        model: the model's name there; None: the only one.
    """

    url: str
    api: str = "auto"
    model: str | None = None


class Patient:
    """A reward model under examination.

    Args:
        folder: description of its folder.
        scorer: the loaded model; None if it could not be loaded.
        template: the template that the user gave; None: the model's own.
        address: a server to compare; None: none.

    Attributes:
        samples: the texts that fit into the model's maximum length.
        refused: lengths of the texts that do not, in tokens.
    """

    def __init__(
        self, folder: FolderDescription, scorer: TextScorer | None, samples: Samples, *,
        template: Template | None = None, address: Address | None = None,
    ) -> None:
        self.folder, self.maybe_scorer, self.samples = folder, scorer, samples
        self.given_template, self.address = template, address
        self.refused: list[int] = []
        if scorer is not None and scorer.reads_tokens:
            self._leave_out_long()

    @property
    def positions(self) -> int | None:
        """The model's maximum number of tokens; None where it has none or it is not known."""
        found: int | None = getattr(self.scorer, "position_limit", None)
        return found

    def _leave_out_long(self) -> None:
        lengths = [len(one) + len(other) for one, other in zip(*self.written, strict=True)]
        fitting = [
            index for index, length in enumerate(lengths)
            if self.positions is None or length <= self.positions
        ]
        if not fitting:
            raise DataError(
                f"All {len(lengths)} texts are longer than the model's limit of {self.positions} "
                f"tokens (the shortest has {min(lengths)}); give shorter ones."
            )
        if len(fitting) < len(lengths):
            self.refused = [length for length in lengths if length > (self.positions or 0)]
            self.samples = self.samples.only(fitting)
            # The cached ids were those of all texts.
            del self.written

    @property
    def scorer(self) -> TextScorer:
        assert self.maybe_scorer is not None, "checks that need the model run where it is loaded"
        return self.maybe_scorer

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer; None where it has none."""
        return self.scorer.tokenizer

    @property
    def reads_tokens(self) -> bool:
        """Whether the model scores token ids and its template is known."""
        return self.scorer.reads_tokens

    @functools.cached_property
    def rewards(self) -> np.ndarray:
        """Rewards ``[N]`` of the texts."""
        return self.scorer.score(self.samples.prompts, self.samples.completions)

    @functools.cached_property
    def written(self) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts and responses, with final padding tokens that the model ignores."""
        assert self.scorer.template is not None
        rows = encode_rows(
            self.samples.prompts, self.samples.completions, self.scorer.template, self.tokenizer
        )
        return [row.prompt_ids for row in rows], [row.response_ids for row in rows]

    @functools.cached_property
    def read(self) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts and responses up to the position of the reward."""
        prompts, completions = self.samples.prompts, self.samples.completions
        scorer: Any = self.scorer
        found: tuple[list[list[int]], list[list[int]]] = scorer.encode(prompts, completions)
        return found

    def score_ids(self, prompts: list[list[int]], responses: list[list[int]]) -> np.ndarray:
        """Rewards ``[N]`` of rows of token ids."""
        scorer: Any = self.scorer
        found: np.ndarray = scorer.score_ids(prompts, responses)
        return found

    def with_template(self, template: Template) -> np.ndarray:
        """Rewards of the same texts, written with another template."""
        rows = encode_rows(
            self.samples.prompts, self.samples.completions, template, self.tokenizer
        )
        return self.score_ids([row.prompt_ids for row in rows], [row.response_ids for row in rows])

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype; float32 where the weights are not in this process."""
        model = getattr(self.scorer, "reward_model", None)
        return torch.float32 if model is None else next(model.parameters()).dtype

    @property
    def tolerance(self) -> tuple[float, float]:
        """Largest absolute and relative difference of rewards that count as equal, by the rounding
        of the weights' dtype."""
        return _SINGLE if self.dtype in (torch.float32, torch.float64) else _HALF

    def equal(self, found: np.ndarray, expected: np.ndarray) -> bool:
        """Whether rewards are equal up to rounding."""
        absolute, relative = self.tolerance
        return found.shape == expected.shape and bool(
            np.allclose(found, expected, atol=absolute, rtol=relative)
        )

    def stated(self) -> str:
        """The tolerance in words."""
        absolute, relative = self.tolerance
        return f"rewards that differ by at most {absolute:g} + {relative:g}·|reward|"


def largest(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())
