"""The teacher: rewards of one-token extensions at positions of responses.

Shapes: n positions of a response, K candidates at each.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.asking import whole_characters
from rewardsteer.decoding.crossing import shares_tokens
from rewardsteer.decoding.detokenizer import response_text
from rewardsteer.models.batching import left_pad
from rewardsteer.records import Prompt


class Asked(NamedTuple):
    """A response, with the positions and tokens that rewards are wanted for.

    Attributes:
        prompt: as given, for reward models that read texts.
        prompt_ids: of the policy.
        response_ids: of the policy.
        lengths: ``n`` ascending numbers of response tokens that the prefixes have.
        tokens: ``[n, K]`` of the policy.
    """

    prompt: Prompt
    prompt_ids: Sequence[int]
    response_ids: Sequence[int]
    lengths: Sequence[int]
    tokens: np.ndarray


class TokenTeacher:
    """A reward model that takes the policy's tokens.

    Args:
        stops: tokens that end a response of the policy. The reward of such a candidate is that of
            the response, closed as in the teacher's training.
    """

    def __init__(self, scorer: Any, stops: Collection[int]) -> None:
        self.scorer, self._stops = scorer, frozenset(stops)

    def rewards(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        """Rewards ``[n, K]`` of each response; NaN at tokens that the teacher does not know."""
        found = [np.full(one.tokens.shape, np.nan) for one in asked]
        cache = self.scorer.open()
        for step in range(max((len(one.lengths) for one in asked), default=0)):
            # A response with fewer positions repeats its last one, which costs no new token.
            places = [min(step, len(one.lengths) - 1) for one in asked]
            ids, mask = left_pad([
                [*one.prompt_ids, *one.response_ids[: one.lengths[place]]]
                for one, place in zip(asked, places, strict=True)
            ])
            tokens = torch.tensor(np.stack([
                one.tokens[place] for one, place in zip(asked, places, strict=True)
            ]))
            known = tokens < self.scorer.vocabulary_size
            tokens = tokens.masked_fill(~known, 0)
            if self.scorer.gives_next_token:
                rewards = self.scorer.next_token(ids, mask, cache).cpu().gather(1, tokens)
            else:
                rewards = self.scorer.candidates(ids, mask, tokens, cache).cpu()
            values = rewards.double().masked_fill(~known, torch.nan).numpy()
            for row, (place, value) in enumerate(zip(places, values, strict=True)):
                found[row][place] = value
        self._close(asked, found)
        return found

    def _close(self, asked: Sequence[Asked], found: list[np.ndarray]) -> None:
        """Replace the rewards of tokens that end a response by those of closed responses."""
        places, prompts, responses = [], [], []
        for row, one in enumerate(asked):
            for at, candidate in np.argwhere(np.isin(one.tokens, list(self._stops))):
                ended = [*one.response_ids[: one.lengths[at]], int(one.tokens[at, candidate])]
                closed = self.scorer.close_response(ended, self._stops)
                if closed != ended:
                    places.append((row, at, candidate))
                    prompts.append(list(one.prompt_ids))
                    responses.append(closed)
        if places:
            values = self.scorer.score_ids(prompts, responses, batch_size=max(len(asked), 1))
            for (row, at, candidate), value in zip(places, values, strict=True):
                found[row][at, candidate] = value


class TextTeacher:
    """A reward model with another tokenizer, or one that scores texts alone: it scores the texts
    that end in the candidates, written with its own template.

    Args:
        tokenizer: the policy's.
        stops: tokens that end a response of the policy.
        template: how the policy's responses are written.
    """

    def __init__(
        self, scorer: Any, tokenizer: Any, stops: Collection[int], template: Template
    ) -> None:
        self.scorer, self._tokenizer = scorer, tokenizer
        self._stops, self._template = frozenset(stops), template

    def rewards(self, asked: Sequence[Asked]) -> list[np.ndarray]:
        found = [np.empty(one.tokens.shape) for one in asked]
        for closed in (False, True):
            places, prompts, texts = [], [], []
            for row, one in enumerate(asked):
                for (at, candidate), token in np.ndenumerate(one.tokens):
                    if (int(token) in self._stops) == closed:
                        places.append((row, at, candidate))
                        prompts.append(one.prompt)
                        texts.append(self._text(one, at, None if closed else int(token)))
            if places:
                values = self.scorer.score(prompts, texts, closed=closed)
                for (row, at, candidate), value in zip(places, values, strict=True):
                    found[row][at, candidate] = value
        return found

    def _text(self, one: Asked, at: int, token: int | None) -> str:
        ids = list(one.response_ids[: one.lengths[at]]) + ([] if token is None else [token])
        return whole_characters(
            response_text(self._tokenizer, one.prompt_ids, ids, self._template)
        )


def teacher_of(
    scorer: Any, tokenizer: Any, stops: Collection[int], template: Template
) -> TokenTeacher | TextTeacher:
    """A reward model as the teacher of a policy with this tokenizer."""
    if shares_tokens(tokenizer, scorer):
        return TokenTeacher(scorer, stops)
    return TextTeacher(scorer, tokenizer, stops, template)
