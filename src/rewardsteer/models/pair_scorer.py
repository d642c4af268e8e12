"""Models that compare two responses to a prompt and give neither of them a reward."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rewardsteer.data.render import as_prompt
from rewardsteer.data.tokenize import paired
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.models.batching import batches, right_pad
from rewardsteer.models.finite import require_finite
from rewardsteer.models.limits import check_length
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt


class PairScorer(TextScorer):
    """A model that says how likely the first of two responses is the better one. It is asked in
    both orders, since which response is shown first changes the answer.

    Args:
        model: the Hugging Face model, in evaluation mode and on its device.
        tokenizer: the one it was trained with.
        name, fingerprint: see `TextScorer`.

    Attributes:
        position_limit: longest pair that the model reads, in tokens; None where it has no limit.
        activation: how outputs become probabilities.
        noted: attributes that result files name.
    """

    position_limit: int | None = None
    activation: ClassVar[str]
    noted: ClassVar[tuple[str, ...]] = ("activation",)

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str = "", fingerprint: str = ""
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name, self.fingerprint = name, fingerprint

    @abc.abstractmethod
    def encode_pair(self, turns: Sequence[str], first: str, second: str) -> list[int]:
        """The tokens of a pair, as published for the kind.

        Args:
            turns: texts of the prompt's turns: the user's, the assistant's, …, the user's.
            first, second: the responses, in the order in which they are shown.

        Raises:
            DataError: a text is too long or contains what marks the parts.
        """

    @abc.abstractmethod
    def first_wins(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Probabilities ``[R]`` that the response shown first is the better one, of right-padded
        pairs ``[R, T]``; mask ``[R, T]`` is 1 on real tokens."""

    def preferences(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], *,
        batch_size: int = 16,
    ) -> np.ndarray:
        """Probabilities ``[N]`` (float64) that the first response is the better one: the mean over
        both orders. Arguments and errors as in `orders`."""
        mean: np.ndarray = self.orders(prompts, first, second, batch_size=batch_size).mean(axis=1)
        return mean

    @torch.no_grad()
    def orders(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], *,
        batch_size: int = 16,
    ) -> np.ndarray:
        """Probabilities ``[N, 2]`` (float64) that the first response is the better one: where it is
        shown first, and where it is shown second.

        Args:
            prompts: N texts or conversations.
            first, second: N responses each.
            batch_size: pairs that are read together.

        Raises:
            DataError: different numbers of prompts and responses, or a pair that cannot be read;
                names the row.
            NonFiniteError: a probability is NaN; names the row.
        """
        _, second = paired(prompts, second)
        prompts, first = paired(prompts, first)
        rows: list[list[int]] = []
        for number, (prompt, one, other) in enumerate(
            zip(prompts, first, second, strict=True), start=1
        ):
            try:
                turns = _turns(prompt)
                rows += [self.encode_pair(turns, one, other), self.encode_pair(turns, other, one)]
            except DataError as error:
                raise DataError(f"Row {number}: {error}") from error
            check_length(
                number, max(map(len, rows[-2:])), self.position_limit,
                reader=self.name or "the model", parts="its prompt or its responses",
            )
        shares = np.empty(len(rows))
        for batch in batches([len(ids) for ids in rows], rows=batch_size, tokens=None):
            shares[batch] = self._read([rows[row] for row in batch]).cpu().double().numpy()
        require_finite(shares, [1 + row // 2 for row in range(len(rows))])
        return np.stack([shares[::2], 1 - shares[1::2]], axis=1)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int = 16,
        closed: bool = True,
    ) -> np.ndarray:
        """Refused: one response has no reward.

        Raises:
            MismatchError: says what works instead.
        """
        raise MismatchError(no_reward(self.name, self.kind))

    def provenance(self) -> dict[str, Any]:
        return super().provenance() | {
            "orders": "both, averaged", "dtype": str(self.model.dtype).removeprefix("torch."),
        } | {name: getattr(self, name) for name in self.noted}

    def _read(self, rows: Sequence[list[int]]) -> Tensor:
        ids, mask = right_pad(rows)
        return self.first_wins(ids.to(self.model.device), mask.to(self.model.device))


def no_reward(name: str, kind: str) -> str:
    """The sentence that a model of pairs gives no reward, and what works instead."""
    return (
        f"Expected a reward model, but {name or 'this one'} ({kind}) compares two responses to a "
        "prompt and gives no reward of one; use it with the method 'tournament', with "
        "'rewardsteer evaluate benchmark' on a benchmark of pairs, or with "
        "RewardModel.preference(prompt, first, second), or choose another model."
    )


def require_pairs(scorer: TextScorer) -> PairScorer:
    """The scorer as a model of pairs.

    Raises:
        MismatchError: it gives rewards.
    """
    if isinstance(scorer, PairScorer):
        return scorer
    raise MismatchError(
        f"Expected a model that compares two responses, but {scorer.name or 'this one'} "
        f"({scorer.kind or type(scorer).__name__}) gives each a reward; use score."
    )


def _turns(prompt: Prompt) -> list[str]:
    prompt = as_prompt(prompt)
    if isinstance(prompt, str):
        return [prompt]
    roles = [message.role for message in prompt]
    if len(roles) % 2 == 0 or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise DataError(
            "a model of pairs reads turns of user and assistant by turns, the user's first and "
            f"last; got the turns {', '.join(roles) or 'none'}."
        )
    return [message.content for message in prompt]
