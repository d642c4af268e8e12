"""``/v1/completions`` and ``/v1/chat/completions``: one way of answering, two forms."""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.records import Message, Prompt
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.responses import Response
from rewardsteer.serving.replies import (
    AssistantMessage,
    ChatChoice,
    ChatReply,
    CompletionChoice,
    CompletionReply,
    Told,
    Usage,
)
from rewardsteer.serving.schema import ChatRequest, CompletionRequest
from rewardsteer.serving.served import Served
from rewardsteer.serving.service import Service
from rewardsteer.serving.tickets import Answer, Done, Piece, Ticket
from rewardsteer.serving.waiting import EventStream

# OpenAI's, of completions; answers in a chat may be as long as the server allows.
_COMPLETION_TOKENS = 16
@dataclass(frozen=True)
class Form:
    """What differs between the two.

    Attributes:
        prefix: of ids.
        chunk: what parts of streams call themselves.
        reply: the answer from choices and the rest.
        choice: a choice from index, answer and what is told of it.
        opening: of a stream's choice, before any text; None: nothing.
        part: the fields of a stream's choice with some text.
    """

    prefix: str
    chunk: str
    reply: type[CompletionReply] | type[ChatReply]
    choice: Callable[[int, Answer, dict[str, Any]], CompletionChoice | ChatChoice]
    opening: dict[str, Any] | None
    part: Callable[[str | None], dict[str, Any]]


COMPLETION = Form(
    "cmpl", "text_completion", CompletionReply,
    lambda index, answer, more: CompletionChoice(
        index=index, text=answer.text, finish_reason=answer.finish_reason, **more
    ),
    None, lambda text: {"text": text or ""},
)
CHAT = Form(
    "chatcmpl", "chat.completion.chunk", ChatReply,
    lambda index, answer, more: ChatChoice(
        index=index, message=AssistantMessage(content=answer.text),
        finish_reason=answer.finish_reason, **more,
    ),
    {"role": "assistant", "content": ""},
    lambda text: {"delta": {} if text is None else {"content": text}},
)


class Generating:
    """One request for responses.

    Args:
        service: models, queue and figures.
        request: what is asked.
        form: of the answer.
        prompts: to be answered.
        max_tokens: longest response; None: as long as may be.

    Raises:
        ApiError: no such model, or too much is asked for.
    """

    def __init__(
        self, service: Service, request: Guidance, form: Form,
        prompts: list[Prompt | list[int]], max_tokens: int | None,
    ) -> None:
        self._service, self._request, self._form = service, request, form
        self._prompts, self._max_tokens = prompts, max_tokens
        served = service.served
        service.check_model(request.model, served.name if served.engine else None)
        self._config = settings_of(request, served)
        self._n = request.n or 1
        drawn = self._config.n if self._config.method == "best_of_n" else self._n
        if len(prompts) * drawn > served.limits.max_rows:
            raise bad_request(
                f"{len(prompts)} prompts with {drawn} responses each are {len(prompts) * drawn} "
                f"rows; a request may have {served.limits.max_rows}.", "n",
            )
        if max_tokens is not None and max_tokens > served.limits.max_tokens:
            raise bad_request(
                f"max_tokens may be at most {served.limits.max_tokens}, got {max_tokens}.",
                "max_tokens",
            )
        self._ticket = Ticket()
        self._responses: list[Response] = []
        self._head = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}", "created": int(time.time()),
            "model": served.name, "system_fingerprint": served.fingerprint,
        }

    async def answer(self, http: Request) -> CompletionReply | ChatReply | EventStream:
        """The whole answer, or a stream of it."""
        stream, config = bool(self._request.stream), self._config
        self._responses = await self._service.prepare(
            lambda: self._service.served.responses(
                self._ticket, self._service.batcher.outbox, self._prompts, config, n=self._n,
                stops=self._request.stops, stream=stream, max_tokens=self._max_tokens,
            )
        )
        # Whatever can be refused is refused before a stream begins.
        self._service.batcher.generate(self._responses)
        events = self._service.listen(http, self._ticket)
        if stream:
            return EventStream(
                self._chunks(events), self._service.served.limits.seconds,
                lambda: self._service.batcher.give_up(self._ticket),
            )
        answers: dict[int, Answer] = {}
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Done):
                    answers[event.index] = event.answer
                    if len(answers) == len(self._responses):
                        break
        choices = [
            self._form.choice(index, answers[index], self._more(answers[index]))
            for index in range(len(self._responses))
        ]
        return self._form.reply(
            **self._head, choices=choices, usage=self._usage(list(answers.values()))
        )

    async def _chunks(
        self, events: AsyncGenerator[Any, None]
    ) -> AsyncGenerator[str, None]:
        options = self._request.stream_options
        told: list[Answer] = []
        given = [0] * len(self._responses)
        async with contextlib.aclosing(events):
            if self._form.opening is not None:
                for index in range(len(self._responses)):
                    yield self._chunk(index, {"delta": self._form.opening})
            async for event in events:
                if isinstance(event, Piece):
                    given[event.index] += len(event.text)
                    yield self._chunk(event.index, self._form.part(event.text))
                elif isinstance(event, Done):
                    told.append(event.answer)
                    rest = event.answer.text[given[event.index] :]
                    if rest:
                        yield self._chunk(event.index, self._form.part(rest))
                    yield self._chunk(
                        event.index, self._form.part(None), event.answer.finish_reason,
                        self._more(event.answer),
                    )
                    if len(told) == len(self._responses):
                        break
        if options is not None and options.include_usage:
            yield json.dumps({
                **self._head, "object": self._form.chunk, "choices": [],
                "usage": self._usage(told).model_dump(),
            })
        yield "[DONE]"

    def _chunk(
        self, index: int, part: dict[str, Any], reason: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> str:
        extra = {} if more is None else {
            "token_ids": more["token_ids"], "guidance": more["guidance"].model_dump(),
        }
        choice = {"index": index, **part, "finish_reason": reason, "logprobs": None, **extra}
        return json.dumps({**self._head, "object": self._form.chunk, "choices": [choice]})

    def _more(self, answer: Answer) -> dict[str, Any]:
        told = Told(method=self._config.method, seed=self._config.seed, reward=answer.reward,
                    cost=answer.cost)
        ids = answer.token_ids if self._request.return_token_ids else None
        return {"token_ids": ids, "guidance": told}

    def _usage(self, answers: list[Answer]) -> Usage:
        prompt = sum(len(one.samples[0].row.prompt_ids) for one in self._responses[:: self._n])
        new = sum(len(answer.token_ids) for answer in answers)
        return Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)


async def complete(
    service: Service, request: CompletionRequest, http: Request
) -> CompletionReply | ChatReply | EventStream:
    """Answer ``/v1/completions``."""
    length = request.max_tokens
    if length is None:
        length = min(_COMPLETION_TOKENS, service.limits.max_tokens)
    prompts: list[Prompt | list[int]] = list(request.prompts)
    return await Generating(service, request, COMPLETION, prompts, length).answer(http)


async def chat(
    service: Service, request: ChatRequest, http: Request
) -> CompletionReply | ChatReply | EventStream:
    """Answer ``/v1/chat/completions``."""
    both = request.max_completion_tokens, request.max_tokens
    length = next((value for value in both if value is not None), None)
    prompts: list[Prompt | list[int]] = [conversation(request.messages)]
    return await Generating(service, request, CHAT, prompts, length).answer(http)
