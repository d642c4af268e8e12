"""The interface of every kind of reward model: it scores texts, and the steps of texts."""

import abc
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rewardsteer.data.template import Template
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.records import Prompt

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rewardsteer.models.scorer import Scorer

# Between the steps of a response.
STEP_SEPARATOR = "\n\n"
# The beginning of an error about a row; the number is that among the rows scored together.
NUMBERED_ROW = re.compile(r"^Row \d+\b")
# What needs a model of token ids, for `require_tokens`.
ROWS_WITH_TOOLS = "rows with tools, which its chat template has to write"


class TextScorer(abc.ABC):
    """A reward model of any kind, as scoring, evaluation and serving use it.

    Attributes:
        reads_tokens: whether it is a `rewardsteer.models.scorer.Scorer`, which also scores token
            ids and growing prefixes and gives hidden states (see `require_tokens`).
        kind: name in `rewardsteer.models.kinds.KINDS`; "" when it was not loaded by name.
        name: folder or other name, for messages.
        fingerprint: of the weights, for result files; "" when unknown.
        tokenizer: the model's own; None where the model takes texts.
        template: how prompts and responses are written; None where the kind has a fixed form.
    """

    reads_tokens: ClassVar[bool] = False
    kind: str = ""
    name: str = ""
    fingerprint: str = ""
    tokenizer: Any = None
    template: Template | None = None

    @abc.abstractmethod
    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """Rewards ``[N]`` (float64) of completions, in the order given.

        Args:
            prompts, completions: N each; prompts are texts or conversations.
            batch_size: rows scored together; it changes rewards by rounding alone.
            closed: the completions have ended; else each is a prefix that may go on.

        Raises:
            DataError: different numbers of prompts and completions, or a row too long.
            NonFiniteError: a reward is NaN or infinite; names the row.
        """

    def score_each(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16
    ) -> list[float | DataError]:
        """Rewards of N completions; in place of one that cannot be scored, the reason.

        Raises:
            NonFiniteError: a reward is NaN or infinite.
        """
        if not len(prompts):
            return []
        try:
            found = self.score(prompts, completions, batch_size=batch_size)
            return [float(one) for one in found]
        except DataError as error:
            if len(prompts) == 1:
                return [error]
        half = len(prompts) // 2
        parts = (slice(half), slice(half, None))
        return [
            one for part in parts
            for one in self.score_each(prompts[part], completions[part], batch_size=batch_size)
        ]

    def step_scores(
        self, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]], *, batch_size: int = 16
    ) -> list[np.ndarray]:
        """One value (float64) per step of each response.

        Here it is the reward of the prefix that ends at the step: the steps up to it, joined by a
        blank line. The last prefix is the whole response, closed.

        Args:
            prompts: N texts or conversations.
            steps: N lists of texts.
            batch_size: rows scored together.

        Raises:
            DataError: different numbers of prompts and lists of steps, or a row too long.
            NonFiniteError: a value is NaN or infinite.
        """
        require_steps(prompts, steps)
        values = [np.empty(len(one)) for one in steps]
        for closed in (False, True):
            places = [
                (row, at) for row, one in enumerate(steps) for at in range(len(one))
                if (at == len(one) - 1) == closed
            ]
            rewards = self.score(
                [prompts[row] for row, _ in places],
                [STEP_SEPARATOR.join(steps[row][: at + 1]) for row, at in places],
                batch_size=batch_size, closed=closed,
            ) if places else ()
            for (row, at), reward in zip(places, rewards, strict=True):
                values[row][at] = reward
        return values

    def attributes(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16
    ) -> dict[str, np.ndarray]:
        """The values ``[N]`` (float64) of each attribute that the reward is combined of, by name.

        Raises:
            MismatchError: the reward is one number, not combined of several.
            DataError, NonFiniteError: see `score`.
        """
        raise MismatchError(
            f"Expected a reward model with several outputs, but {self.name or 'this one'} "
            f"({self.kind or type(self).__name__}) has one reward and no attributes; use score."
        )

    def to(self, device: "torch.device | str") -> None:
        """Move the weights that are held in this process to a device."""
        for one in self._parts():
            one.to(device)

    def parameter_count(self) -> int:
        """Number of weights that are held in this process; 0 behind an address."""
        return sum(
            one.parameter_count() if isinstance(one, TextScorer)
            else sum(weight.numel() for weight in one.parameters())
            for one in self._parts()
        )

    def _parts(self) -> "Iterator[nn.Module | TextScorer]":
        from torch import nn

        for part in vars(self).values():
            for one in part if isinstance(part, tuple | list) else [part]:
                if isinstance(one, nn.Module | TextScorer):
                    yield one

    def provenance(self) -> dict[str, Any]:
        """Settings that the rewards depend on, for result files: the kind, the template, further
        ones of the kind (activation, aggregation, dtype, …)."""
        template = None if self.template is None else self.template.model_dump(mode="json")
        return {"kind": self.kind, "template": template}


def require_steps(prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]) -> None:
    """Refuse steps that are no lists of texts, one list for each prompt.

    Raises:
        DataError: says what came.
    """
    if isinstance(prompts, str) or len(prompts) != len(steps):
        count = "one text" if isinstance(prompts, str) else f"{len(prompts)} prompts"
        raise DataError(f"Expected one list of steps per prompt, got {count} and {len(steps)} "
                        "lists of steps.")
    for number, one in enumerate(steps, start=1):
        if isinstance(one, str):
            raise DataError(f"Expected the steps of row {number} as a list of texts, got one text.")


def score_with_tools(
    scorer: TextScorer, prompts: Sequence[Prompt], completions: Sequence[str],
    tools: Sequence[list[dict[str, Any]] | None], *, batch_size: int = 16,
) -> np.ndarray:
    """Rewards ``[N]`` (float64) of rows, some of which may have tools that the prompt lists.

    Raises:
        MismatchError: a row does, and the reward model scores texts alone.
        DataError, NonFiniteError: see `TextScorer.score`.
    """
    if not any(tools):
        return scorer.score(prompts, completions, batch_size=batch_size)
    scorer = require_tokens(scorer, ROWS_WITH_TOOLS)
    ids = scorer.encode(prompts, completions, tools=tools)
    return scorer.score_ids(*ids, batch_size=batch_size)


def require_tokens(scorer: TextScorer, purpose: str) -> "Scorer":
    """The scorer as one of token ids.

    Args:
        purpose: what needs it, for the message ("the method farma", "goal states").

    Raises:
        MismatchError: the reward model scores texts alone.
    """
    if scorer.reads_tokens:
        return scorer  # type: ignore[return-value]
    raise MismatchError(
        f"Expected a reward model that gives a reward per token for {purpose}, but "
        f"{scorer.name or 'this one'} ({scorer.kind or type(scorer).__name__}) scores whole texts; "
        "use one trained with rewardsteer or a one-label classifier on a decoder, or a method that "
        "scores texts, such as best_of_n."
    )
