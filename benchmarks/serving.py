"""A server under load from many clients at once, with batches of several rows and of one."""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import torch

from benchmarks.backbones import Backbone
from benchmarks.harness import Row
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.reach import bind
from rewardsteer.serving.run import run as serve
from rewardsteer.serving.service import Service


@dataclass(frozen=True)
class Sizes:
    """What the table measures.

    Attributes:
        backbone: that of policy and reward model.
        clients: number of clients, each with one request at a time.
        requests: requests per client.
        fewer: requests per client where the batch has one row or the queue is too small.
        tokens: longest response.
        places: rows per batch.
        narrow: queue length of the server that has to refuse requests.
    """

    backbone: Backbone
    clients: int
    requests: int
    fewer: int
    tokens: int
    places: int
    narrow: int


SIZES = Sizes(
    backbone=Backbone(2, 64, len(build_tokenizer()), heads=4, feed_forward=128), clients=64,
    requests=200, fewer=5, tokens=16, places=32, narrow=8,
)
# Most seconds before a refused client retries; Retry-After has whole seconds only.
_SOONEST = 0.2
SETUP = (
    "Server and clients are two processes on one machine, over 127.0.0.1. Policy and reward model: "
    f"{SIZES.backbone}; float32; FaRMA; weights and seeds differ from request to request; "
    f"prompts of 12 and at most {SIZES.tokens} new tokens; every fourth answer is streamed. "
    f"{SIZES.clients} clients at once, each with {SIZES.requests} requests in the first row and "
    f"{SIZES.fewer} elsewhere; clients that are refused (429) try again after {_SOONEST} s. "
    "Latency is the time until the complete answer, of answered requests."
)


@dataclass
class Load:
    """Results of all clients: seconds, tokens, refusals, errors, latencies in seconds."""

    seconds: float = 0.0
    tokens: int = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """A quantile of the latencies, in milliseconds."""
        return 1000 * statistics.quantiles(self.latencies, n=100)[round(100 * share) - 1]


# A server's address, and a function that returns its memory in MiB.
Started = tuple[str, Callable[[], float]]
# Starts a server, given the rows per batch and the length of its queue.
Start = Callable[[Sizes, int, int], contextlib.AbstractContextManager[Started]]


def load(address: str, sizes: Sizes, requests: int) -> Load:
    """Send ``requests`` requests from each of all clients at once."""
    found = Load()

    async def all_clients() -> None:
        limits = httpx.Limits(max_connections=sizes.clients)
        async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
            began = time.perf_counter()
            await asyncio.gather(*(
                _client(http, number, sizes, requests, found) for number in range(sizes.clients)
            ))
            found.seconds = time.perf_counter() - began

    asyncio.run(all_clients())
    return found


async def _client(
    http: httpx.AsyncClient, number: int, sizes: Sizes, requests: int, found: Load
) -> None:
    for turn in range(requests):
        seed = number * requests + turn
        body = {
            "prompt": "7+8*3=7+8=5;", "seed": seed, "weight": (seed % 7) / 2,
            "max_tokens": sizes.tokens, "stream": turn % 4 == 3,
            "stream_options": {"include_usage": True} if turn % 4 == 3 else None,
        }
        while True:
            began = time.perf_counter()
            try:
                reply = await http.post("/v1/completions", json=body)
            except httpx.HTTPError as error:
                found.errors.append(type(error).__name__)
                break
            if reply.status_code == 429:
                found.refused += 1
                await asyncio.sleep(min(_SOONEST, float(reply.headers["Retry-After"])))
                continue
            if reply.status_code != 200:
                found.errors.append(str(reply.status_code))
                break
            found.latencies.append(time.perf_counter() - began)
            found.tokens += _tokens(reply)
            break


def _tokens(reply: httpx.Response) -> int:
    if reply.headers["content-type"].startswith("application/json"):
        return int(reply.json()["usage"]["completion_tokens"])
    *_, last, end = [line for line in reply.text.splitlines() if line]
    assert end == "data: [DONE]", end
    return int(json.loads(last.removeprefix("data: "))["usage"]["completion_tokens"])


def make_service(sizes: Sizes, places: int, queue: int) -> Service:
    """The service with its models."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    policy, reward = sizes.backbone.causal_lm().eval(), sizes.backbone.causal_lm().eval()
    scorer = Scorer(RewardModel(reward, HeadConfig(kind="vocabulary")), tokenizer, Template())
    limits = ServingConfig(places=places, queue=queue)
    defaults = DecodingConfig(method="farma", top_k=0)
    return Service(ServedModels(policy, tokenizer, scorer, defaults, limits), limits)


@contextlib.contextmanager
def own_process(sizes: Sizes, places: int, queue: int) -> Iterator[Started]:
    """A server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serving", json.dumps(asdict(sizes)), str(places),
               str(queue)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def memory() -> float:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if "VmRSS" in line)

        try:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{address}/healthz").status_code == 200:
                        break
                time.sleep(0.1)
            yield address, memory
        finally:
            process.terminate()


def run(sizes: Sizes = SIZES, start: Start = own_process) -> list[Row]:
    """Requests per second, latencies, refusals and errors."""
    with start(sizes, sizes.places, 4 * sizes.clients) as (address, memory):
        load(address, sizes, sizes.fewer)
        before = memory()
        many = load(address, sizes, sizes.requests)
        more = memory() - before
    with start(sizes, 1, 4 * sizes.clients) as (address, _):
        single = load(address, sizes, sizes.fewer)
    with start(sizes, sizes.places, sizes.narrow) as (address, _):
        narrow = load(address, sizes, sizes.fewer)
    rows = []
    for case, one, extra in (
        (f"{sizes.places} places", many, {"memory after − before, MiB": more}),
        (f"{sizes.places} places, {sizes.narrow} may wait", narrow, {}),
    ):
        ours, other = len(one.latencies) / one.seconds, len(single.latencies) / single.seconds
        rows.append({
            "case": case, "ours": ours, "other": other, "ratio": ours / other,
            "unit": "requests/s", "answered": len(one.latencies), "p50, ms": one.quantile(0.5),
            "p99, ms": one.quantile(0.99), "tokens/s": one.tokens / one.seconds,
            "429": one.refused, "errors": len(one.errors),
            "kinds of errors": ", ".join(sorted(set(one.errors))) or "none", **extra,
        })
    return rows


def main(sizes: str, places: str, queue: str) -> None:
    """Serve, and print the address as the first line."""
    values = json.loads(sizes)
    made = Sizes(**values | {"backbone": Backbone(**values["backbone"])})
    place = bind("127.0.0.1", 0)
    print(f"http://127.0.0.1:{place.getsockname()[1]}", flush=True)
    serve(make_service(made, int(places), int(queue)), place, host="127.0.0.1", key=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
