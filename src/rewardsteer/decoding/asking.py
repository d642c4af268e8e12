"""Samples in the form that the reward model takes: token ids or texts.

Where policy and reward model share a tokenizer, the reward model gets the policy's own tokens.
Otherwise it gets texts, written with its own template. The text of an unfinished response is cut at
its last complete character, because a token may end within a character.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewardsteer.decoding.token_stream import UNFINISHED
from rewardsteer.errors import DataError
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.records import Prompt

if TYPE_CHECKING:
    from rewardsteer.decoding.sample import Encoded, Sample


def whole_characters(text: str) -> str:
    """A growing text without an incomplete last character, of which bytes are still missing."""
    return text.rstrip(UNFINISHED)


@dataclass(eq=False)
class Ask:
    """A question to the reward model about one sample.

    Attributes:
        sample: the response: as generated so far, or closed if it has ended.
        goal: a goal state, for the similarity of the last token's state to it; None: the reward.
        prompt_alone: ask for the reward of the prompt, without the response.
        told: how many of the response's tokens have had their similarities answered; the answer is
            of all later ones. None: of the last token alone.
        rival: another response to the prompt, for the probability that the sample is preferred.
    """

    prompt: "Encoded"
    sample: "Sample"
    goal: GoalState | None = None
    prompt_alone: bool = False
    told: int | None = None
    rival: "Sample | None" = None

    @property
    def closed(self) -> bool:
        """Whether the question is about a complete response, closed as in training."""
        return not self.prompt_alone and self.goal is None and bool(self.sample.finish_reason)

    @property
    def text(self) -> str:
        """The response's text, cut at the last complete character if the sample is unfinished."""
        if self.prompt_alone:
            return ""
        text = self.sample.text
        return text if self.sample.finish_reason else whole_characters(text)


@dataclass(frozen=True)
class Row:
    """A question as token ids.

    Attributes:
        prompt, response: token ids; empty for a reward model that is asked about texts.
    """

    ask: Ask
    prompt: Sequence[int] = ()
    response: Sequence[int] = ()

    @property
    def ids(self) -> list[int]:
        """Token ids of prompt and response."""
        return [*self.prompt, *self.response]


def as_row(ask: Ask, scorer: Any, *, texts: bool) -> Row:
    """A question as token ids of a reward model.

    Args:
        texts: tokenize texts instead of using the policy's tokens.

    Raises:
        DataError: the reward model's template refuses the text, or the text is too long for the
            model.
    """
    if texts:
        prompts, responses = scorer.encode([ask.prompt.given], [ask.text], closed=ask.closed)
        row = Row(ask, prompts[0], responses[0])
        limit = scorer.position_limit
        if limit is not None and len(row.ids) > limit:
            raise DataError(
                f"A response to {ask.prompt.id!r} has {len(row.ids)} tokens of the reward model's "
                f"with its prompt, but it reads at most {limit}; shorten the prompt or lower "
                "max_new_tokens."
            )
        return row
    prompt, sample = list(ask.prompt.token_ids), ask.sample
    if ask.prompt_alone:
        return Row(ask, prompt, [])
    if not ask.closed:
        return Row(ask, prompt, list(sample.token_ids))
    return Row(ask, prompt, scorer.close_response(sample.response_ids, sample.stop_token))


def text_tokens(ask: Ask, scorer: Any) -> int:
    """Approximate number of tokens that a reward model of texts processes: prompt and response (or
    both responses) without its template, counted by its own tokenizer, else by the policy's."""
    samples = [ask.sample] if ask.rival is None else [ask.sample, ask.rival]
    if scorer.tokenizer is None:
        return len(ask.prompt.token_ids) + sum(one.length for one in samples)
    return count_tokens(
        scorer.tokenizer, ask.prompt.given, ask.text, *(one.text for one in samples[1:])
    )


def count_tokens(tokenizer: Any, prompt: Prompt, *texts: str) -> int:
    """Tokens of a prompt and of texts, without a template."""
    parts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    return sum(map(len, tokenizer([*parts, *texts], add_special_tokens=False)["input_ids"]))
