"""Process reward models of our own: a scalar head trained with the objective ``process``.

σ(value at the end of a step) is the probability that the step is correct. The reward of a response
is the aggregate of its steps, and that of a prefix the aggregate of its steps including the
unfinished one.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardsteer.data.step_tokens import step_lengths
from rewardsteer.data.text_ids import plain_text
from rewardsteer.errors import ConfigError
from rewardsteer.models.aggregation import (
    SEPARATOR,
    aggregate_beginnings,
    check_aggregation,
    check_steps,
)
from rewardsteer.models.finite import require_finite
from rewardsteer.models.reading import HiddenBatch
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.text_scorer import require_steps
from rewardsteer.records import Prompt


class ProcessScorer(Scorer):
    """A `Scorer` whose rewards are aggregated probabilities of steps.

    A step ends with the token that holds the end of the separator behind it, the last step with the
    response, as in training (`rewardsteer.data.step_tokens`).

    Args:
        split: text between two steps; white space after it belongs to it.
        aggregate: how the values of steps become one reward, see `models.aggregation`.
        positional, options: of `Scorer`.
    """

    combines_positions = True

    def __init__(
        self, *positional: Any, split: str = SEPARATOR, aggregate: str = "min", **options: Any
    ) -> None:
        super().__init__(*positional, **options)
        if not split:
            raise ConfigError("split must be the text between two steps, got an empty one.")
        self.split = split
        self.aggregate = check_aggregation(aggregate)
        self._between = re.compile(rf"{re.escape(split)}\s*")

    @property
    def scores_last_token(self) -> bool:
        """False: earlier steps count too."""
        return False

    @torch.no_grad()
    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]], *, batch_size: int = 16
    ) -> list[np.ndarray]:
        """Probabilities (float64) that each step is correct, in one forward pass.

        Raises:
            DataError: no step or an empty one, or a row too long.
            NonFiniteError: a value is NaN or infinite.
        """
        require_steps(prompts, steps)
        texts, ends = [], []
        for row, own in enumerate(steps, start=1):
            check_steps(own, row)
            bodies = [step.strip() for step in own]
            texts.append(self.split.join(bodies))
            behind = [len(self.split.join(bodies[: at + 1])) for at in range(len(bodies))]
            ends.append([*(end + len(self.split) for end in behind[:-1]), behind[-1]])
        prompt_ids, response_ids = self.encode(prompts, texts) if texts else ([], [])
        found: list[np.ndarray] = [np.empty(0)] * len(texts)
        for read in self.read(prompt_ids, response_ids, batch_size=batch_size):
            values = self._probabilities(read).numpy()
            for index, row in enumerate(read.rows):
                lengths = step_lengths(texts[row], ends[row], response_ids[row], self.tokenizer)
                before = int(read.begins[index]) - 1
                found[row] = values[index, [before + length for length in lengths]]
        for row, own_values in enumerate(found, start=1):
            require_finite(own_values, tokens_of=row)
        return found

    def _probabilities(self, read: HiddenBatch) -> Tensor:
        """σ(value) ``[R, T]`` at each column, float64 (products of many are small) and on the CPU
        (not every device has float64)."""
        values: Tensor = self.reward_model.head.token_rewards(read.hidden, read.ids)
        return values.cpu().double().sigmoid()

    def _token_rewards(self, read: HiddenBatch) -> Tensor:
        """Rewards ``[R, T]`` of the prefixes ending at each column: the aggregate of their steps.
        """
        values = self._probabilities(read)
        for index in range(len(read.rows)):
            begin, last = int(read.begins[index]), int(read.last[index])
            if last < begin:
                continue
            ids = read.ids[index, begin : last + 1].tolist()
            ends = [begin + length for length in self._ends(ids)]
            values[index, begin : last + 1] = aggregate_beginnings(
                values[index, begin : last + 1], [end - begin for end in ends], self.aggregate
            )
        return values

    def _ends(self, response_ids: list[int]) -> list[int]:
        """Tokens of a response up to the end of each step that another one follows."""
        text = plain_text(response_ids, self.tokenizer)
        ends = [
            one.end() for one in self._between.finditer(text)
            if text[: one.start()].strip() and text[one.end() :].strip()
        ]
        return step_lengths(text, ends, response_ids, self.tokenizer, merge=True)

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {
            "activation": "sigmoid", "split": self.split, "aggregation": self.aggregate,
        }
