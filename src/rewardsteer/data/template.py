"""Templates that turn a prompt and a response into text, for training, scoring and generation."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from rewardsteer.configuration import Config
from rewardsteer.faults import checked

_TURNS = {
    "system": "{content}",
    "user": "\n\nHuman: {content}",
    "assistant": "\n\nAssistant: {content}",
}


class Template(Config):
    """A response template.

    Attributes:
        kind: ``text`` formats strings; ``chat`` uses the tokenizer's chat template; ``auto`` is
            ``chat`` where the tokenizer has one, else ``text`` (see `resolve`).
        prompt: for ``text``: format of the final prompt.
        turns: for ``text``: how each role's turn is written when a prompt is a conversation.
        answer: for ``text``: text that opens the answer after a conversation's last turn.
        response: format of the response.
        system: system message put before conversations that have none.
        append_eos: close every response: with end-of-text for ``text``, with the chat template's
            end of the turn for ``chat``. The reward of a whole response is computed there.
        end: for ``chat``: where a closed response ends. ``template``: where the chat template ends
            the assistant's turn, as in transformers and TRL. ``eos``: at the tokenizer's
            end-of-text token, whatever the template writes after it.
        add_special_tokens: for ``text``: let the tokenizer add special tokens (beginning-of-text)
            before the prompt. Chat templates write their own.
    """

    kind: Literal["auto", "chat", "text"] = "auto"
    prompt: str = "{prompt}"
    turns: dict[str, str] = Field(default_factory=lambda: dict(_TURNS))
    answer: str = "\n\nAssistant:"
    response: str = "{response}"
    system: str | None = None
    append_eos: bool = True
    end: Literal["template", "eos"] = "template"
    add_special_tokens: bool = True

    @field_validator("prompt")
    @classmethod
    def _names_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("must contain {prompt}")
        return value

    @field_validator("response")
    @classmethod
    def _names_response(cls, value: str) -> str:
        if "{response}" not in value:
            raise ValueError("must contain {response}")
        return value

    def unclosed(self) -> "Template":
        """The template for responses that may continue: it writes nothing after them."""
        opening, _, _ = self.response.partition("{response}")
        return self.model_copy(update={
            "response": opening + "{response}", "append_eos": False, "end": "eos",
        })


def resolve(template: Template, tokenizer: Any) -> Template:
    """The template with ``auto`` replaced by a kind; other templates are returned unchanged.

    ``auto`` becomes ``chat`` where the tokenizer has a chat template, unless a text format
    (``prompt``, ``turns`` or ``answer``) is given, which only ``text`` uses; else ``text``.
    """
    if template.kind != "auto":
        return template
    plain = Template()
    formats = any(
        getattr(template, name) != getattr(plain, name) for name in ("prompt", "turns", "answer")
    )
    chats = bool(getattr(tokenizer, "chat_template", None))
    kind = "chat" if chats and not formats else "text"
    return template.model_copy(update={"kind": kind})


def stored_template(values: Mapping[str, Any]) -> Template:
    """The template stored in a reward model's card or a manifest, with its meaning at that time.

    Cards and manifests hold every setting. One without ``end`` comes from an earlier version, in
    which responses end at end-of-text.

    Raises:
        ValueError: the values are not those of a template.
    """
    complete = "kind" in values and "append_eos" in values
    if values.get("kind") == "chat" and complete and "end" not in values:
        return checked(Template, {**values, "end": "eos"})
    if values and "kind" not in values:
        # A partial template from the time when ``text`` was the default.
        return checked(Template, {**values, "kind": "text"})
    return checked(Template, dict(values))


def writer_of(template: Template | None, tokenizer: Any, scorer: Any = None) -> tuple[
    Template, Any
]:
    """The template of a policy's prompts, and the tokenizer that has their chat template.

    Args:
        template: given by the user; None: the reward model's, else ``auto``.
        tokenizer: the policy's; None without one.
        scorer: the reward model that guides, or None.

    Returns:
        the resolved template, and the reward model's tokenizer where it has a chat template (the
        one of its training), otherwise the policy's.
    """
    ours = getattr(scorer, "tokenizer", None)
    carrier = ours if getattr(ours, "chat_template", None) or tokenizer is None else tokenizer
    template = template or getattr(scorer, "template", None) or Template()
    return resolve(template, carrier), carrier
