"""Conversations written by a chat template, and the text it puts before and after a turn."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from rewardsteer.errors import DataError

# Roles of usual chat models. Other roles are accepted where the chat template names them.
ROLES = ("system", "user", "assistant", "tool")
# Placeholder content: the rendered text around it is what the template adds.
_PROBE = "REWARDSTEER-PROBE"


class _Around(NamedTuple):
    template: Any
    openings: tuple[str, ...]
    begin: str
    end: str


_known: WeakKeyDictionary[Any, _Around] = WeakKeyDictionary()


def write_chat(
    tokenizer: Any, messages: Sequence[dict[str, Any]], *,
    tools: list[dict[str, Any]] | None = None, answer: bool = False,
    options: Mapping[str, Any] | None = None,
) -> str:
    """A conversation as the tokenizer's chat template writes it.

    Args:
        tokenizer: has the chat template.
        messages: role, content and further fields of each turn.
        tools: functions that the template lists, as JSON schemas.
        answer: open an assistant's turn at the end.
        options: further arguments of ``apply_chat_template``; they override ``answer``.

    Raises:
        DataError: there is no template, a role is unknown, or the template refuses the conversation
            (the message quotes it). Most templates accept any role, so roles are checked here.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"The tokenizer {tokenizer.name_or_path} has no chat template; use a chat model or "
            "template.kind=text."
        )
    written = str(tokenizer.chat_template)
    called = any(message.get("tool_calls") for message in messages)
    if (tools and "tools" not in written) or (called and "tool_calls" not in written):
        raise DataError(
            f"The chat template of {tokenizer.name_or_path} writes no tools and tool calls; use a "
            "tokenizer whose template does, or leave these rows out."
        )
    # OpenAI's newer name of the system role.
    messages = [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]
    unknown = unknown_role(messages, written)
    if unknown is not None:
        raise DataError(
            f"Message {unknown + 1} has the role {messages[unknown]['role']!r}, which the chat "
            f"template of {tokenizer.name_or_path} does not name; use {', '.join(ROLES)}."
        )
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False,
            **{"add_generation_prompt": answer, **(options or {})},
        )
    except (TemplateError, TypeError, ValueError) as error:
        # A template refuses a conversation with raise_exception, or fails at an absent field.
        raise DataError(f"The chat template refuses the conversation: {error}") from error
    return text


def unknown_role(messages: Sequence[Mapping[str, Any]], written: str) -> int | None:
    """Index of the first message with a role that is not in `ROLES` and not in the chat template's
    text; None where there is none."""
    for number, message in enumerate(messages):
        role = message["role"]
        if role not in ROLES and f"'{role}'" not in written and f'"{role}"' not in written:
            return number
    return None


def turn_end(tokenizer: Any) -> str:
    """What the chat template writes after the content of the last assistant turn.

    Raises:
        DataError: there is no template, or it writes no assistant's content.
    """
    return _around(tokenizer).end


def turn_begin(tokenizer: Any) -> str:
    """What the chat template writes between an opened assistant turn and its content."""
    return _around(tokenizer).begin


def written_already(text: str, tokenizer: Any) -> bool:
    """Whether a text was already written by the chat template: it begins with the special tokens
    that open a conversation there (beginning-of-text may be missing)."""
    if not getattr(tokenizer, "chat_template", None):
        return False
    openings = _around(tokenizer).openings
    return bool(openings) and text.startswith(openings)


def _around(tokenizer: Any) -> _Around:
    template = getattr(tokenizer, "chat_template", None)
    found = _known.get(tokenizer)
    if found is None or found.template != template:
        found = _known[tokenizer] = _Around(
            template, _openings(tokenizer), *_turn(tokenizer)
        )
    return found


def _turn(tokenizer: Any) -> tuple[str, str]:
    """The template's text before the content of an opened assistant turn, and after it."""
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}]
    whole = write_chat(tokenizer, talk)
    before, found, end = whole.rpartition(_PROBE)
    if not found:
        raise DataError(
            f"The chat template of {tokenizer.name_or_path} writes no assistant turns; give "
            "another one, or use template.kind=text."
        )
    opened = write_chat(tokenizer, talk[:1], answer=True)
    return before.removeprefix(opened) if before.startswith(opened) else "", end


def _openings(tokenizer: Any) -> tuple[str, ...]:
    """The special token that opens a conversation. Where that is beginning-of-text, also the
    special token after it."""
    whole = write_chat(tokenizer, [{"role": "user", "content": _PROBE}])
    before = whole.partition(_PROBE)[0]
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= set(tokenizer.all_special_tokens)
    first = _leading(before, special)
    if not first:
        return ()
    second = _leading(before[len(first) :], special) if first == tokenizer.bos_token else ""
    return (first, second) if second else (first,)


def _leading(text: str, tokens: set[str]) -> str:
    return max((token for token in tokens if text.startswith(token)), key=len, default="")
