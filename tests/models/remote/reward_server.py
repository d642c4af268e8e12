"""Reward servers on a port of this machine, written from the published forms of vLLM, SGLang and
OpenRLHF. Rewards are a plain function of the token ids or the text that a server received."""

import asyncio
import json
import math
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes import character_tokenizer

TOKENIZER = character_tokenizer()


def reward_of(ids):
    """Some number that depends on every token and its place, mostly outside 0 to 1."""
    return sum((place % 7 - 3) * token for place, token in enumerate(ids, start=1)) / 50 - 2.0


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


class RewardServer:
    """A server of one of the published kinds.

    Args:
        kind: ``vllm``, ``sglang`` or ``openrlhf``.
        ignores_activation: old servers, which always apply the sigmoid.
        raw: a server without any activation.
        labels: numbers per row.
        refuse: given the number of a request, a status instead of an answer, or None.
        nan_at: the number of a request whose rewards are not numbers.
        state: gives the numbers of a row in place of rewards, whatever is asked for.

    Attributes:
        asked: bodies of requests with their route.
        most: requests at a time at most.
    """

    def __init__(self, kind, *, ignores_activation=False, raw=False, labels=1, softmax=False,
                 refuse=None, nan_at=None, reward=reward_of, seconds=0.0, state=None):
        self.kind, self.ignores, self.raw, self.labels = kind, ignores_activation, raw, labels
        self.softmax, self.refuse, self.nan_at = softmax, refuse or (lambda n: None), nan_at
        self.reward, self.seconds, self.state = reward, seconds, state
        self.asked, self.keys, self.running, self.most = [], set(), 0, 0
        self._lock = threading.Lock()
        routes = {
            "vllm": [("/classify", self._classify), ("/pooling", self._pooling)],
            "sglang": [("/classify", self._native)],
            "openrlhf": [("/get_reward", self._rewards)],
        }[kind]
        owner = [] if kind == "openrlhf" else [Route("/v1/models", self._models)]
        app = Starlette(routes=owner + [
            Route(path, self._guarded(answer), methods=["POST"]) for path, answer in routes
        ])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._server = uvicorn.Server(uvicorn.Config(
            app, port=port, log_level="critical", lifespan="off"
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

    def _guarded(self, answer):
        async def endpoint(request):
            body = await request.json()
            self.keys.add(request.headers.get("authorization"))
            self.asked.append((request.url.path, body))
            number = len(self.asked)
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(self.seconds)
            self.running -= 1
            status = self.refuse(number)
            if status is not None:
                return JSONResponse({"error": {"message": "row too long: 9 tokens"}}, status,
                                    {"Retry-After-Ms": "1"})
            reply = answer(body)
            if number == self.nan_at:
                reply = None
            # Python's own JSON, which writes NaN as some servers do.
            return Response(json.dumps(reply), media_type="application/json")
        return endpoint

    async def _models(self, request):
        return JSONResponse({"object": "list", "data": [
            {"id": "rm", "object": "model", "owned_by": self.kind}
        ]})

    def _rows(self, body):
        if "messages" in body:
            text = "".join(f"{m['role']}: {m['content']}\n" for m in body["messages"])
            if body.get("continue_final_message"):
                text = text.removesuffix("\n")
            assert body["add_generation_prompt"] is False
            return [TOKENIZER.encode(text)]
        given = body["input"]
        given = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        return [TOKENIZER.encode(one) if isinstance(one, str) else one for one in given]

    def _shaped(self, value, body):
        """What vLLM does by default: a sigmoid over one label, a softmax over several."""
        values = [value + number for number in range(self.labels)]
        if self.raw or (not self.ignores and body.get("use_activation") is False):
            return values
        if self.labels == 1:
            return [sigmoid(value)]
        total = sum(math.exp(one) for one in values)
        return [math.exp(one) / total for one in values]

    def _classify(self, body):
        data = []
        for index, ids in enumerate(self._rows(body)):
            probs = self.state(ids) if self.state else self._shaped(self.reward(ids), body)
            data.append({"index": index, "label": "LABEL_0", "probs": probs,
                         "num_classes": len(probs)})
        # Answers may come in another order.
        return {"id": "classify-1", "object": "list", "created": 0, "model": "rm",
                "data": data[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    def _pooling(self, body):
        data = [
            {"index": index, "object": "pooling", "data": self.state(ids) if self.state else [
                self._shaped(self.reward(ids[:end]), body) for end in range(1, len(ids) + 1)
            ]} for index, ids in enumerate(self._rows(body))
        ]
        return {"id": "pool-1", "object": "list", "created": 0, "model": "rm", "data": data,
                "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    def _native(self, body):
        rows = body.get("input_ids") or [TOKENIZER.encode(one) for one in body["text"]]
        return [
            {"embedding": [1.0] if self.softmax else self.state(ids) if self.state else
             [self.reward(ids) + number for number in range(self.labels)],
             "meta_info": {"id": "x", "prompt_tokens": len(ids)}} for ids in rows
        ]

    def _rewards(self, body):
        return {"rewards": [self.reward(TOKENIZER.encode(one)) for one in body["query"]]}
