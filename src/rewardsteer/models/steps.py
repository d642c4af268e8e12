"""The tokens at which the steps of a response end."""

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from rewardsteer.data.text_ids import plain_text
from rewardsteer.data.thoughts import shared_length
from rewardsteer.errors import DataError
from rewardsteer.models.text_scorer import STEP_SEPARATOR
from rewardsteer.records import Prompt


class Encoder(Protocol):
    """The part of a scorer that writes texts as tokens."""

    tokenizer: Any

    def encode(
        self, prompts: Sequence[Prompt], completions: Sequence[str], *, closed: bool = True
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of prompts and responses."""


class EncodedSteps(NamedTuple):
    """Responses as token ids, with the ends of their steps.

    Attributes:
        prompt_ids, response_ids: of the closed responses.
        ends: for each row the positions of its steps' last tokens, counted from the first token of
            the prompt.
    """

    prompt_ids: list[list[int]]
    response_ids: list[list[int]]
    ends: list[list[int]]


def encode_steps(
    scorer: Encoder, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]
) -> EncodedSteps:
    """Tokens of responses, their steps joined by a blank line; no list of steps is empty.

    A step ends at the first token with which all of it has been read (see `_end`), the last one at
    the end of the closed response.

    Raises:
        DataError: there is no token up to the end of a step.
    """
    joined = [STEP_SEPARATOR.join(one) for one in steps]
    prompt_ids, response_ids = scorer.encode(prompts, joined) if steps else ([], [])
    places = [(row, at) for row, one in enumerate(steps) for at in range(len(one) - 1)]
    parts = [STEP_SEPARATOR.join(steps[row][: at + 1]) for row, at in places]
    before, begun = scorer.encode(
        [prompts[row] for row, _ in places], parts, closed=False
    ) if places else ([], [])
    whole = [[*p, *r] for p, r in zip(prompt_ids, response_ids, strict=True)]
    ends: list[list[int]] = [[] for _ in steps]
    for (row, at), part, prompt, prefix in zip(places, parts, before, begun, strict=True):
        end = _end(whole[row], [*prompt, *prefix], joined[row], len(part), scorer.tokenizer)
        if end < 0:
            raise DataError(f"Step {at + 1} of row {row + 1} has no token before its end; give the "
                            "row a prompt, or the step a text.")
        ends[row].append(max(end, len(prompt_ids[row]) - 1))
    for row, ids in enumerate(whole):
        ends[row].append(len(ids) - 1)
    return EncodedSteps(prompt_ids, response_ids, ends)


def _end(
    whole: Sequence[int], prefix: Sequence[int], joined: str, length: int, tokenizer: Any
) -> int:
    """Position of the token of a row with which the first ``length`` characters of the response
    ``joined`` have been read.

    Usually the ``prefix``, which was tokenized alone, has the row's own tokens. Where the tokenizer
    merges its end with what follows, or the chat template puts something before the response, the
    characters of the decoded row decide.
    """
    same = shared_length(whole, prefix)
    if same == len(prefix):
        return same - 1
    text = plain_text(whole, tokenizer, special=True)
    start = text.rfind(joined)
    if start < 0:
        # Templates may strip the response.
        start = text.rfind(joined.strip()) - (len(joined) - len(joined.lstrip()))
    if start < 0:
        return same - 1
    end = start + length
    return bisect.bisect_left(
        range(len(whole)), end,
        key=lambda count: len(plain_text(whole[:count], tokenizer, special=True)),
    ) - 1
