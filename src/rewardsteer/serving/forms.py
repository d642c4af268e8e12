"""Answers in OpenAI's two forms (completions, chats), complete or streamed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rewardsteer.serving.handles import Answer, Finished, TextDelta
from rewardsteer.serving.logprobs import Characters, Found, chat_form, completion_form
from rewardsteer.serving.replies import (
    AssistantMessage,
    ChatChoice,
    ChatReply,
    CompletionChoice,
    CompletionReply,
)


@dataclass(frozen=True)
class Form:
    """The differences between completions and chats.

    Attributes:
        chunk: the field ``object`` of a stream's parts.
        param: request field that holds the prompts.
        reply: builds a reply from its choices and other fields.
        choice: builds a choice from its text and other fields.
        part: the fields of a stream's choice with some text; "" is the first, None the last.
        logprobs: builds the log-probabilities of tokens.
    """

    prefix: str
    chunk: str
    param: str
    reply: type[CompletionReply] | type[ChatReply]
    choice: Callable[..., CompletionChoice | ChatChoice]
    part: Callable[[str | None], dict[str, Any]]
    logprobs: Callable[..., Any]


COMPLETION = Form(
    "cmpl", "text_completion", "prompt", CompletionReply,
    lambda text, **more: CompletionChoice(text=text, **more),
    lambda text: {"text": text or ""}, completion_form,
)
CHAT = Form(
    "chatcmpl", "chat.completion.chunk", "messages", ChatReply,
    lambda text, **more: ChatChoice(message=AssistantMessage(content=text), **more),
    lambda text: {"delta": {"content": text} if text else {} if text is None else {
        "role": "assistant", "content": "",
    }},
    # This form has no text offsets.
    lambda tokenizer, before, ids, found, characters=None, by_id=False: chat_form(
        tokenizer, before, ids, found, by_id=by_id
    ),
)


class ChoiceStream:
    """The parts of one choice of a stream.

    Args:
        head: fields with which every part of the stream begins.
        index: of the choice.
        logprobs: builds log-probabilities of tokens, given those before them; None: not requested.
        more: builds further fields of the last part from the answer.
    """

    def __init__(
        self, form: Form, head: dict[str, Any], index: int, before: Sequence[int],
        logprobs: Callable[..., Any] | None, more: Callable[[Answer], dict[str, Any]],
    ) -> None:
        self._form, self._head, self._index = form, head, index
        self._before, self._logprobs, self._more = list(before), logprobs, more
        # Tokens and characters that were sent, and the characters of the tokens named.
        self._tokens = self._characters = self.generated = 0
        self._named = Characters()

    def opening(self, shown: str | None, found: Found) -> Iterator[dict[str, Any]]:
        """Parts before any text of the response.

        Args:
            shown: the prompt, if it is echoed.
            found: its log-probabilities, if they are requested.
        """
        if self._form is CHAT:
            yield self._chunk("")
        if shown is not None:
            before, self._before = self._before, []
            yield self._chunk(shown, before, found)

    def chunks(self, event: TextDelta | Finished) -> Iterator[dict[str, Any]]:
        if isinstance(event, TextDelta):
            self._characters += len(event.text)
            self._tokens += len(event.token_ids)
            self.generated = self._tokens
            yield self._chunk(event.text, event.token_ids, event.logprobs)
            return
        answer = event.answer
        self.generated = answer.generated
        text, new = answer.text[self._characters :], answer.token_ids[self._tokens :]
        if text or (new and self._logprobs is not None):
            yield self._chunk(text, new, answer.logprobs[self._tokens :])
        last = self._chunk(None)
        told = self._more(answer)
        last["choices"][0] |= {
            "finish_reason": answer.finish_reason, "stop_reason": told["stop_reason"],
            "token_ids": told["token_ids"], "guidance": told["guidance"].model_dump(),
        }
        yield last

    def _chunk(
        self, text: str | None, ids: Sequence[int] = (), found: Found = ()
    ) -> dict[str, Any]:
        logprobs = None
        if self._logprobs is not None and ids:
            logprobs = self._logprobs(self._before, ids, found, self._named).model_dump()
            self._before += ids
        choice = {"index": self._index, **self._form.part(text), "finish_reason": None,
                  "logprobs": logprobs}
        return {**self._head, "object": self._form.chunk, "choices": [choice]}
