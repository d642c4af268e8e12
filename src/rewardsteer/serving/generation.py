"""``/v1/completions`` and ``/v1/chat/completions``: one way of answering, two forms."""

import contextlib
import functools
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from rewardsteer.records import Cost, Prompt
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.forms import CHAT, COMPLETION, ChoiceStream, Form
from rewardsteer.serving.handles import Answer, Finished, RequestHandle, Response, TextDelta
from rewardsteer.serving.logprobs import Characters, Found, of_prompts
from rewardsteer.serving.replies import (
    ChatReply,
    CompletionReply,
    GuidanceInfo,
    TokenizeReply,
    Usage,
)
from rewardsteer.serving.reward_schema import TokenizeRequest
from rewardsteer.serving.schema import ChatRequest, CompletionRequest, GenerationFields
from rewardsteer.serving.service import Service
from rewardsteer.serving.settings import check_meaning, model_settings, settings_of
from rewardsteer.serving.streaming import EventStream

# OpenAI's default for completions; chat replies may be as long as the server allows.
_COMPLETION_TOKENS = 16



class Generating:
    """One request for responses.

    Args:
        max_tokens: longest response; None: as long as allowed; 0: none, only the echoed prompts.
        top: return log-probabilities, and those of this many likeliest tokens; None: none.
        raw: prompts are tokenized without a template.
        echo: put the prompts before the responses.
        options: further variables of the chat template.

    Raises:
        ApiError: no such model, or too much is asked for.
    """

    def __init__(
        self, service: Service, request: GenerationFields, form: Form,
        prompts: Sequence[Prompt | list[int]], max_tokens: int | None, *, top: int | None,
        raw: bool = False, echo: bool = False, options: Mapping[str, Any] | None = None,
    ) -> None:
        self._service, self._request, self._form = service, request, form
        self._prompts, self._max_tokens, self._raw = prompts, max_tokens, raw
        self._top, self._echo = top, echo
        served = service.served
        service.check_model(
            model_settings(request.model, served)[0], served.name if served.engine else None
        )
        self._read = served.encode_raw if raw else functools.partial(
            served.encode, options=options
        )
        self._config = settings_of(request, served)
        check_meaning(request, self._config, served)
        if (options or {}).get("continue_final_message") and served.reads_texts(self._config):
            raise bad_request(
                "continue_final_message needs a reward model that reads the policy's tokens: to "
                "this one, the message and its continuation are two texts; leave it out, or use "
                "the method 'none'.", "continue_final_message",
            )
        self._n = request.n or 1
        self._check_size()
        self._handle = RequestHandle()
        self._responses: list[Response] = []
        # For every prompt: token ids, and if it is echoed, text and log-probabilities.
        self._ids: list[list[int]] = []
        self._shown: list[str] = []
        self._found: list[Found] = []
        self._head = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}", "created": int(time.time()),
            "model": served.name, "system_fingerprint": served.fingerprint,
        }

    def _check_size(self) -> None:
        limits, config = self._service.limits, self._config
        drawn = self._n * getattr(self._service.served.methods.build(config), "samples", 1)
        rows = len(self._prompts) * drawn
        if rows > limits.max_rows:
            raise bad_request(
                f"The request asks for {rows} responses (prompts: {len(self._prompts)}, drawn for "
                f"each: {drawn}); a request may have {limits.max_rows}.", "n",
            )
        most = self._max_tokens
        if most is not None and most > limits.max_tokens:
            raise bad_request(
                f"max_tokens may be at most {limits.max_tokens}, got {most}.", "max_tokens"
            )
        if config.min_tokens > (limits.max_tokens if most is None else most) > 0:
            raise bad_request(
                f"min_tokens = {config.min_tokens} exceeds the longest response.", "min_tokens"
            )

    async def answer(self, http: Request) -> CompletionReply | ChatReply | EventStream:
        """The complete reply, or a stream of it."""
        service = self._service
        await service.prepare(http, texts_of(self._prompts), self._begin, self._form.param)
        if self._echo and self._top is not None:
            self._found = await of_prompts(service, http, self._ids, self._top)
        # All refusals come before a stream begins.
        service.worker.generate(self._responses)
        events = service.stream_events(http, self._handle)
        if self._request.stream:
            return EventStream(
                self._chunks(events), service.limits.seconds,
                lambda: service.worker.give_up(self._handle),
            )
        answers = {
            index: Answer("", [], "length", Cost()) for index in range(len(self._ids) * self._n)
        } if self._max_tokens == 0 else {}
        missing = len(self._responses)
        async with contextlib.aclosing(events):
            while missing:
                event = await anext(events)
                if isinstance(event, Finished):
                    answers[event.index] = event.answer
                    missing -= 1
        if self._top is None:
            return self._reply(answers)
        return await service.prepare(http, [], lambda: self._reply(answers))

    def _begin(self) -> None:
        """Tokenize the prompts; not called in the loop's thread."""
        served = self._service.served
        assert served.engine is not None
        self._ids = [self._read(one, str(number)) for number, one in enumerate(self._prompts)]  # type: ignore[arg-type]
        if self._echo:
            self._shown = [
                sent if isinstance(sent, str)
                else served.engine.tokenizer.decode(ids, skip_special_tokens=True)
                for sent, ids in zip(self._prompts, self._ids, strict=True)
            ]
        if self._max_tokens != 0:
            self._responses = served.responses(
                self._handle, self._ids, self._config, n=self._n,
                stream=bool(self._request.stream), max_tokens=self._max_tokens, raw=self._raw,
                top=self._top, given=self._prompts,
            )

    def _reply(self, answers: Mapping[int, Answer]) -> CompletionReply | ChatReply:
        choices = []
        for index, answer in sorted(answers.items()):
            prompt = index // self._n
            text, logprobs = answer.text, None
            if self._echo:
                text = self._shown[prompt] + text
            if self._top is not None:
                ids = self._ids[prompt]
                found: Found = answer.logprobs
                before: Sequence[int] = ids
                tokens: Sequence[int] = answer.token_ids
                if self._echo:
                    before, tokens = (), [*ids, *tokens]
                    found = [*self._found[prompt], *found]
                logprobs = self._logprobs(before, tokens, found)
            choices.append(self._form.choice(
                text, index=index, finish_reason=answer.finish_reason, logprobs=logprobs,
                **self._more(answer),
            ))
        usage = self._usage(sum(answer.generated for answer in answers.values()))
        return self._form.reply(**self._head, choices=choices, usage=usage)

    async def _chunks(self, events: AsyncGenerator[Any, None]) -> AsyncGenerator[str, None]:
        options, missing = self._request.stream_options, len(self._responses)
        usage = options is not None and options.include_usage
        streams = [
            ChoiceStream(
                self._form, self._head, index, self._ids[index // self._n],
                None if self._top is None else self._logprobs, self._more,
            ) for index in range(missing)
        ]

        def written(chunk: dict[str, Any]) -> str:
            if usage:
                tell = not chunk["choices"] or (options and options.continuous_usage_stats)
                spent = sum(stream.generated for stream in streams)
                chunk["usage"] = self._usage(spent).model_dump() if tell else None
            return json.dumps(chunk)

        async with contextlib.aclosing(events):
            for index, stream in enumerate(streams):
                prompt = index // self._n
                shown = self._shown[prompt] if self._echo else None
                for chunk in stream.opening(shown, self._found[prompt] if self._found else ()):
                    yield written(chunk)
            while missing:
                event = await anext(events)
                if isinstance(event, TextDelta | Finished):
                    missing -= isinstance(event, Finished)
                    for chunk in streams[event.index].chunks(event):
                        yield written(chunk)
        if usage:
            yield written({**self._head, "object": self._form.chunk, "choices": []})
        yield "[DONE]"

    def _logprobs(
        self, before: Sequence[int], ids: Sequence[int], found: Found,
        characters: Characters | None = None,
    ) -> Any:
        assert self._service.served.engine is not None
        tokenizer = self._service.served.engine.tokenizer
        return self._form.logprobs(
            tokenizer, before, ids, found, characters,
            by_id=self._request.return_tokens_as_token_ids,
        )

    def _more(self, answer: Answer) -> dict[str, Any]:
        guidance = GuidanceInfo(
            method=self._config.method, seed=self._config.seed, reward=answer.reward,
            cost=answer.cost,
        )
        ids = answer.token_ids if self._request.return_token_ids else None
        return {"stop_reason": answer.stop_reason, "token_ids": ids, "guidance": guidance}

    def _usage(self, new: int) -> Usage:
        prompt = sum(map(len, self._ids))
        return Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)


async def complete(
    service: Service, request: CompletionRequest, http: Request
) -> CompletionReply | ChatReply | EventStream:
    """Continue prompts."""
    length = request.max_tokens
    if length is None:
        length = min(_COMPLETION_TOKENS, service.limits.max_tokens)
    if length == 0 and (not request.echo or request.stream):
        raise bad_request(
            "max_tokens: expected at least 1, or -1 for as many as may be; 0 is for echo without "
            "stream.", "max_tokens",
        )
    return await Generating(
        service, request, COMPLETION, request.prompts, None if length == -1 else length,
        top=request.logprobs, raw=not request.apply_template, echo=request.echo,
    ).answer(http)


async def chat(
    service: Service, request: ChatRequest, http: Request
) -> CompletionReply | ChatReply | EventStream:
    """Answer a conversation."""
    both = request.max_completion_tokens, request.max_tokens
    length = next((value for value in both if value is not None), None)
    if length == 0:
        raise bad_request(
            "max_tokens: expected at least 1, or -1 for as many as may be, got 0.", "max_tokens"
        )
    return await Generating(
        service, request, CHAT, [[one.turn for one in request.messages]],
        None if length == -1 else length, options=request.options,
        top=(request.top_logprobs or 0) if request.logprobs else None,
    ).answer(http)


def texts_of(prompts: Sequence[Prompt | list[int]]) -> list[str]:
    """The texts that will be tokenized; a conversation is one text."""
    return [
        prompt if isinstance(prompt, str) else "".join(
            turn.content for turn in prompt if not isinstance(turn, int)
        )
        for prompt in prompts
    ]


async def tokenize(service: Service, request: TokenizeRequest, http: Request) -> TokenizeReply:
    """Token ids of a prompt as the policy reads it."""
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
