"""``/v1/completions`` and ``/v1/chat/completions``: one way of answering, two forms."""

import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from rewardsteer.records import Cost, Prompt
from rewardsteer.serving.echoes import Echo, echoes
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.replies import (
    AssistantMessage,
    ChatChoice,
    ChatReply,
    CompletionChoice,
    CompletionReply,
    TokenizeReply,
    Told,
    Usage,
)
from rewardsteer.serving.responses import Response
from rewardsteer.serving.reward_schema import TokenizeRequest
from rewardsteer.serving.schema import ChatRequest, CompletionRequest, Guidance
from rewardsteer.serving.service import Service
from rewardsteer.serving.settings import check_meaning, settings_of
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
        max_tokens: longest response; None: as long as may be; 0: none, only the prompts' echoes.
        raw: prompts are read as they are.

    Raises:
        ApiError: no such model, or too much is asked for.
    """

    def __init__(
        self, service: Service, request: Guidance, form: Form,
        prompts: list[Prompt | list[int]], max_tokens: int | None, *, raw: bool = False,
    ) -> None:
        self._service, self._request, self._form = service, request, form
        self._prompts, self._max_tokens, self._raw = prompts, max_tokens, raw
        served = service.served
        service.check_model(request.model, served.name if served.engine else None)
        self._config = settings_of(request, served)
        check_meaning(request, self._config, served)
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
        if self._max_tokens == 0:
            return await self._echo_alone(http)
        self._responses = await self._service.prepare(
            http, texts_of(self._prompts),
            lambda: self._service.served.responses(
                self._ticket, self._service.batcher.outbox, self._prompts, config, n=self._n,
                stops=self._request.stops, stream=stream, max_tokens=self._max_tokens,
                raw=self._raw,
            ),
            self._param,
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
        found = [answers[index] for index in range(len(self._responses))]
        prompts = [list(one.samples[0].row.prompt_ids) for one in self._responses]
        return self._reply(found, prompts, await self._echoes(http, prompts, found))

    async def _echo_alone(self, http: Request) -> CompletionReply | ChatReply:
        """Prompts without responses."""
        served = self._service.served
        read = served.encode_raw if self._raw else served.encode
        ids = await self._service.prepare(
            http, texts_of(self._prompts), lambda: [read(one) for one in self._prompts],  # type: ignore[arg-type]
            self._param,
        )
        prompts = [one for one in ids for _ in range(self._n)]
        answers = [Answer("", [], "length", Cost()) for _ in prompts]
        return self._reply(answers, prompts, await self._echoes(http, prompts, answers))

    async def _echoes(
        self, http: Request, prompts: list[list[int]], answers: list[Answer]
    ) -> list[Echo] | None:
        request = self._request
        if not isinstance(request, CompletionRequest) or not request.echo:
            return None
        return await echoes(
            self._service, http, prompts, answers, request.logprobs,
            [one for one in self._prompts for _ in range(self._n)],
        )

    def _reply(
        self, answers: list[Answer], prompts: list[list[int]], found: list[Echo] | None
    ) -> CompletionReply | ChatReply:
        choices = []
        for index, answer in enumerate(answers):
            more = self._more(answer)
            if found is not None:
                answer = replace(answer, text=found[index].text)
                more["logprobs"] = found[index].logprobs
            choices.append(self._form.choice(index, answer, more))
        return self._form.reply(
            **self._head, choices=choices, usage=self._usage(prompts, answers)
        )

    @property
    def _param(self) -> str:
        return "prompt" if self._form is COMPLETION else "messages"

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
                "usage": self._usage(
                    [list(one.samples[0].row.prompt_ids) for one in self._responses], told
                ).model_dump(),
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

    def _usage(self, prompts: list[list[int]], answers: list[Answer]) -> Usage:
        prompt = sum(len(one) for one in prompts[:: self._n])
        new = sum(len(answer.token_ids) for answer in answers)
        return Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)


async def complete(
    service: Service, request: CompletionRequest, http: Request
) -> CompletionReply | ChatReply | EventStream:
    """Answer ``/v1/completions``."""
    length = request.max_tokens
    if length is None:
        length = min(_COMPLETION_TOKENS, service.limits.max_tokens)
    _check_echo(request, length)
    prompts: list[Prompt | list[int]] = list(request.prompts)
    return await Generating(
        service, request, COMPLETION, prompts, None if length == -1 else length,
        raw=not request.apply_template,
    ).answer(http)


def _check_echo(request: CompletionRequest, length: int) -> None:
    if length == 0 and not request.echo:
        raise bad_request(
            "max_tokens: expected at least 1, or -1 for as many as may be; 0 is for echo.",
            "max_tokens",
        )
    if request.logprobs is not None and not request.echo:
        raise bad_request(
            "logprobs are given with echo alone; set echo to true, or leave them out.", "logprobs"
        )
    if request.echo and request.stream:
        raise bad_request("echo cannot be streamed; set stream to false.", "echo")


async def chat(
    service: Service, request: ChatRequest, http: Request
) -> CompletionReply | ChatReply | EventStream:
    """Answer ``/v1/chat/completions``."""
    both = request.max_completion_tokens, request.max_tokens
    length = next((value for value in both if value is not None), None)
    if length == 0:
        raise bad_request(
            "max_tokens: expected at least 1, or -1 for as many as may be, got 0.", "max_tokens"
        )
    prompts: list[Prompt | list[int]] = [[one.turn for one in request.messages]]
    return await Generating(
        service, request, CHAT, prompts, None if length == -1 else length
    ).answer(http)


def texts_of(prompts: Sequence[Prompt | list[int]]) -> list[str]:
    """What a tokenizer is to read; a conversation is one text."""
    return [
        prompt if isinstance(prompt, str) else "".join(
            turn.content for turn in prompt if not isinstance(turn, int)
        )
        for prompt in prompts
    ]


async def tokenize(service: Service, request: TokenizeRequest, http: Request) -> TokenizeReply:
    """Answer ``/tokenize``."""
    served = service.served
    service.check_model(request.model, served.name if served.engine else None)
    assert served.engine is not None
    if request.messages is not None:
        turns = [one.turn for one in request.messages]
        ids = await service.prepare(http, texts_of([turns]), lambda: served.encode(turns))
    else:
        text = request.prompt or ""
        if request.add_special_tokens:
            ids = await service.prepare(http, [text], lambda: served.encode_raw(text))
        else:
            ids = await service.prepare(http, [text], lambda: served.encode_bare(text))
    return TokenizeReply(count=len(ids), max_model_len=served.engine.position_limit, tokens=ids)
