"""Rows for reward servers: as conversations, as written text or as token ids."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rewardsteer.data.render import as_prompt, render_closed, render_prompt, render_response
from rewardsteer.data.template import Template, resolve
from rewardsteer.data.tokenize import encode_rows
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.records import Message, Prompt


class Rows(NamedTuple):
    """Completions of prompts, to be scored together.

    Attributes:
        prompts: texts or conversations.
        completions: texts.
        closed: they have ended; else they are prefixes that may go on.
    """

    prompts: Sequence[Prompt]
    completions: Sequence[str]
    closed: bool = True


class RowWriter:
    """Writes rows for servers that apply no template themselves.

    Args:
        tokenizer: the reward model's, or its folder or name; None: a text template alone writes
            rows, and no end-of-text.
        template: how they are written; None: as the tokenizer says.

    Raises:
        ConfigError: the template needs a tokenizer.
    """

    def __init__(self, tokenizer: Any, template: Template | None) -> None:
        if isinstance(tokenizer, str):
            tokenizer = load_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        self.template = resolve(template or Template(), tokenizer)
        if tokenizer is None and (self.template.kind == "chat" or self.template.append_eos):
            raise ConfigError(
                "A chat template, or a template with append_eos, is written with the reward "
                "model's tokenizer; pass tokenizer=FOLDER_OR_NAME, or a text template with "
                "append_eos=False."
            )

    def ids(self, rows: Rows) -> list[list[int]]:
        """Token ids of rows, as the reward model was trained to read them."""
        found = encode_rows(rows.prompts, rows.completions, self._of(rows), self.tokenizer)
        return [[*one.prompt_ids, *one.response_ids] for one in found]

    def texts(self, rows: Rows) -> tuple[list[str], list[str]]:
        """Prompts as written, and rows as written; end-of-text stands behind a row where the
        template closes responses."""
        template = self._of(rows)
        before = [render_prompt(one, template, self.tokenizer) for one in rows.prompts]
        pairs = zip(rows.prompts, before, rows.completions, strict=True)
        if template.kind == "chat":
            return before, [
                render_closed(prompt, opened, completion, template, self.tokenizer)
                for prompt, opened, completion in pairs
            ]
        end = self.tokenizer.eos_token if template.append_eos else ""
        return before, [
            opened + render_response(completion, template) + end for _, opened, completion in pairs
        ]

    def _of(self, rows: Rows) -> Template:
        """The template; nothing is written behind completions that may go on."""
        return self.template if rows.closed else self.template.unclosed()


def conversations(rows: Rows) -> list[list[dict[str, Any]]]:
    """Rows as messages, the last of which is judged."""
    return [
        [*messages(prompt), {"role": "assistant", "content": completion}]
        for prompt, completion in zip(rows.prompts, rows.completions, strict=True)
    ]


def messages(prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt as messages; a text is the user's."""
    turns = as_prompt(prompt)
    if isinstance(turns, str):
        turns = [Message(role="user", content=turns)]
    return [turn.model_dump() for turn in turns]


def part_of(rows: Rows, part: range) -> Rows:
    """Some of the rows, by their indices."""
    return Rows(
        rows.prompts[part.start : part.stop], rows.completions[part.start : part.stop], rows.closed
    )
