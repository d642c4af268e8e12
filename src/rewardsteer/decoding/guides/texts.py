"""Candidates for a reward model with another tokenizer: their texts, tokenized anew.

The policy's k best tokens are appended to the response, and the reward model scores the k texts,
written with its own template. The common beginning of a row's texts stays in its cache from token
to token, as far as its tokens are unchanged. A candidate that ends within a character counts as the
text before it, and one that ends the response as the closed response.

Shapes: B rows, K candidates, V the policy's logits a row.
"""

import functools
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsteer.data.tokenize import shared_length
from rewardsteer.decoding.asking import whole_characters
from rewardsteer.decoding.detokenizer import response_text
from rewardsteer.decoding.guides.base import LogitsGuide
from rewardsteer.decoding.guides.prefix import Prefix
from rewardsteer.decoding.guides.session import AskingSession, CandidateSession
from rewardsteer.errors import RewardsteerError
from rewardsteer.models.batching import left_pad


class TextCandidates:
    """A reward model that is asked about the texts of the policy's tokens.

    Args:
        scorer: a `rewardsteer.models.scorer.Scorer` with a scalar head.
        tokenizer: the policy's.
        stop_ids: tokens that end a response of the policy.
    """

    def __init__(self, scorer: Any, tokenizer: Any, stop_ids: Collection[int]) -> None:
        self._scorer, self._tokenizer, self._stops = scorer, tokenizer, frozenset(stop_ids)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def open_session(self, guide: LogitsGuide) -> AskingSession:
        """A session of a guide on this reward model."""
        return TextCandidateSession(guide)

    def rows(
        self, prompt: Any, response: Sequence[int], candidates: Sequence[int]
    ) -> list[list[int]]:
        """The reward model's ids of prompt∘response∘candidate, one row for each candidate.

        Raises:
            DataError: what the reward model's template refuses.
        """
        found: dict[int, list[int]] = {}
        for closed in (False, True):
            some = [token for token in candidates if (token in self._stops) == closed]
            if not some:
                continue
            texts = [
                whole_characters(response_text(
                    self._tokenizer, prompt.token_ids,
                    response if closed else [*response, token], prompt.template,
                )) for token in some
            ]
            encoded = self._scorer.encode([prompt.given] * len(some), texts, closed=closed)
            for token, before, behind in zip(some, *encoded, strict=True):
                found[token] = [*before, *behind]
        return [found[token] for token in candidates]

    def rewards(self, rows: Sequence[Sequence[int]], cache: Any, place: int, places: int) -> Tensor:
        """Rewards ``[K]`` (float32) of rows of token ids.

        Args:
            rows: continuations of the cached tokens of a place.
            cache: from `Scorer.open`.
            place: one of the cache's ``places``.
        """
        shared = functools.reduce(lambda one, row: one[: shared_length(one, row)], rows)
        own = cache.part_of([place], places)
        if shared:
            own.step(*left_pad([shared]))
        ids, mask = left_pad(rows)
        states = own.peek(ids, mask)
        head = self._scorer.reward_model.head
        assert not head.offset, "check_head() first"
        rewards: Tensor = head.rewards_of(states, ids[:, -1])
        return rewards


class TextCandidateSession(CandidateSession):
    """Asks about the texts of the policy's best tokens."""

    @torch.no_grad()
    def _rewards(
        self, prefix: Prefix, tokens: Tensor, cache: Any
    ) -> tuple[Tensor, Tensor | None]:
        return torch.stack([
            self._row(prefix, place, asked, cache) for place, asked in enumerate(tokens.tolist())
        ]), None

    def _row(
        self, prefix: Prefix, place: int, candidates: Sequence[int], cache: Any
    ) -> Tensor:
        count, places = prefix.steps[place], len(prefix.steps)
        response = prefix.ids[place, prefix.ids.shape[1] - count :].tolist()
        try:
            rows = self._scorer.rows(prefix.prompts[place], response, candidates)
            return self._scorer.rewards(rows, cache, place, places).float().cpu()
        except RewardsteerError as error:
            prefix.fail(place, error)
            return torch.zeros(len(candidates))
