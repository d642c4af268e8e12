"""A server of completions on a port of this machine, whose policy is a table of characters."""

import asyncio
import json
import random
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tests.fakes import character_tokenizer

LETTERS = "abcd 123\n"
TOKENIZER = character_tokenizer()
EOS = TOKENIZER.eos_token_id


class CompletionsServer:
    """Draws letters by a request's seed; what it has generated before decides nothing.

    Args:
        ids, logprobs, completions, named: what it can do; the last: name tokens by their ids.
        models: names that it serves.
        refuse: given the number of a request, a status and headers instead of an answer; None.
        seconds: that an answer takes.

    Attributes:
        asked: bodies of requests.
        most, running, gone: requests at a time at most, now, and that were given up.
    """

    def __init__(self, *, ids=True, logprobs=True, completions=True, named=True, refuse=None,
                 seconds=0.0, models=("m",)):
        self.names = models
        self.ids, self.logprobs, self.completions = ids, logprobs, completions
        self.named = named
        self.refuse, self.seconds = refuse or (lambda number: None), seconds
        self.asked, self.keys = [], []
        self.most = self.running = self.gone = 0
        routes = [Route("/v1/models", self._models),
                  Route("/v1/chat/completions", self._answer, methods=["POST"])]
        if completions:
            routes.append(Route("/v1/completions", self._answer, methods=["POST"]))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        self._server = uvicorn.Server(uvicorn.Config(
            Starlette(routes=routes), port=port, log_level="critical", lifespan="off"
        ))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(20)

    async def _models(self, request):
        self.keys.append(request.headers["authorization"])
        if self.keys[-1] == "Bearer wrong":
            return JSONResponse({"error": {"message": "no"}}, 401)
        return JSONResponse({"object": "list", "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "x", "max_model_len": 200}
            for name in self.names
        ]})

    async def _answer(self, request):
        body = await request.json()
        self.asked.append(body)
        refused = self.refuse(len(self.asked))
        if refused is not None:
            status, headers = refused
            return JSONResponse({"error": {"message": "not now"}}, status, headers)
        prompt = body.get("prompt")
        if isinstance(prompt, list) and not self.ids:
            return JSONResponse({"error": {"message": "texts alone"}}, 400)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:
                if await request.is_disconnected():
                    self.gone += 1
                    return JSONResponse({})
                await asyncio.sleep(0.01)
        finally:
            self.running -= 1
        tokens, reason, stop = self._written(body)
        usage = {"prompt_tokens": len(prompt or "12345"), "completion_tokens": len(tokens),
                 "total_tokens": 0, "prompt_tokens_details": {"cached_tokens": 2}}
        if not body.get("stream"):
            reply = self._piece(body, tokens, reason, stop) | {"usage": usage}
            return JSONResponse(reply)
        return StreamingResponse(self._stream(body, tokens, reason, stop, usage),
                                 media_type="text/event-stream")

    async def _stream(self, body, tokens, reason, stop, usage):
        # Several tokens to a piece, as servers do whose clients are slow.
        for begin in range(0, len(tokens), 3):
            last = begin + 3 >= len(tokens)
            piece = self._piece(body, tokens[begin : begin + 3], reason if last else None, stop)
            yield f"data: {json.dumps(piece)}\n\n"
        last = self._piece(body, [], None, None) | {"choices": [], "usage": usage}
        yield f"data: {json.dumps(last)}\n\n"
        yield "data: [DONE]\n\n"

    def _written(self, body):
        rng = random.Random(0 if body.get("temperature") == 0 else body.get("seed", 0))
        stops = body.get("stop") or []
        tokens = []
        while len(tokens) < body["max_tokens"]:
            banned = len(tokens) < body.get("min_tokens", 0)
            token = EOS if rng.random() < 0.06 else TOKENIZER.encode(rng.choice(LETTERS))[0]
            if token == EOS and (banned or body.get("ignore_eos")):
                continue
            tokens.append(token)
            if token == EOS:
                return tokens, "stop", None
            if token in body.get("stop_token_ids", ()):
                return tokens, "stop", token
            text = TOKENIZER.decode(tokens)
            for stop in stops:
                if stop in text:
                    return tokens, "stop", stop
        return tokens, "length", None

    def _piece(self, body, tokens, reason, stop):
        text = TOKENIZER.decode(tokens, skip_special_tokens=True)
        if isinstance(stop, str) and not body.get("include_stop_str_in_output"):
            text = text.partition(stop)[0]
        choice = {"index": 0, "finish_reason": reason}
        if "messages" in body:
            choice["message"] = {"role": "assistant", "content": text}
            return {"id": "c", "object": "chat.completion", "created": 0, "model": "m",
                    "choices": [choice]}
        choice |= {"text": text, "logprobs": None}
        if body.get("logprobs") is not None and self.logprobs:
            by_id = self.named and body.get("return_tokens_as_token_ids")
            name = "token_id:" if by_id else "text "
            choice["logprobs"] = {
                "tokens": [TOKENIZER.decode([token], skip_special_tokens=True) for token in tokens],
                "token_logprobs": [-1.0 - token / 100 for token in tokens],
                "top_logprobs": [{
                    f"{name}{token}": -1.0 - token / 100, f"{name}99": -9.0,
                } for token in tokens],
                "text_offset": [0] * len(tokens),
            }
        if body.get("return_token_ids") and self.ids:
            choice |= {"token_ids": tokens, "stop_reason": stop}
        return {"id": "c", "object": "text_completion", "created": 0, "model": "m",
                "choices": [choice]}
