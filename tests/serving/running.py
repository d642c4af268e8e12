"""A server in a thread of this process or in one of its own, and what it is compared with."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.serving.app import create_app
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from rewardsteer.serving.reach import bind
from rewardsteer.serving.run import Server, protocol
from rewardsteer.serving.service import Service
from tests.decoding.test_generate import make_policy, make_scorer

KEY = "a key of sixteen!".replace(" ", "-")


def make_service(folder, *, head="vocabulary", objective="", method="farma", goals=None,
                 template=None, policy=None, with_policy=True, **limits):
    """A service on tiny models; end-of-text comes often enough that rows end at different steps."""
    tokenizer = None
    if with_policy:
        model, tokenizer = make_policy("llama", eos_bias=1.0)
        policy = policy or model
    scorer = head and make_scorer(folder, head, objective, template or Template())
    config = ServingConfig(**{"places": 8, "seconds": 60.0, **limits})
    defaults = DecodingConfig(method=method, top_k=5, weight=1.5)
    served = ServedModels(
        policy if with_policy else None, tokenizer, scorer, defaults, config, goals=goals,
        name="tiny", reward_name="tiny-reward", template=template,
    )
    return Service(served, config)


@contextmanager
def running(service, *, key=None, hosts=None):
    """The address and middleware of a server in a thread."""
    place = bind("127.0.0.1", 0)
    middleware = create_app(service, api_key=key, hosts=hosts)
    config = uvicorn.Config(middleware, log_config=None, access_log=False, lifespan="on",
                            http=protocol(service.limits))
    server = Server(config, middleware, 30.0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{place.getsockname()[1]}", middleware
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def offline(service, prompts, **settings):
    """What `generate` answers with the same models and settings."""
    served = service.served
    config = DecodingConfig(**{
        **served.defaults.model_dump(), "batch_size": 4, "max_new_tokens": 16, **settings
    })
    method = build_method(config, served.scorer)
    return list(generate(
        served.engine.policy, served.engine.tokenizer, prompts, method, config,
        template=served.template,
    ))


def wait_until(condition, seconds=20.0):
    """Wait for something that happens in another thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def client(address, key=None, **options):
    """A client of httpx, as many connections as it likes."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    return httpx.Client(base_url=address, headers=headers, timeout=60, limits=limits, **options)


class Process:
    """``rewardsteer`` with some words, which serve, in a process of its own.

    Args:
        warm: the folder of warm commands; a process that starts from nothing otherwise.
    """

    def __init__(self, *words, warm=None, **environment):
        begin = [warm / "rewardsteer"] if warm else [sys.executable, "-m", "rewardsteer"]
        self.process = subprocess.Popen(
            [*begin, *map(str, words)],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=os.environ | environment,
        )
        self.lines = []
        self.ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.ready.wait(120), self.lines
        line = next(line for line in self.lines if "serving at" in line)
        self.address = line.split()[-1]

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.strip())
            if "serving at" in line:
                self.ready.set()
        self.ready.set()

    def end(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def accepted(self):
        [line] = [line for line in self.lines if "requests were accepted" in line]
        return int(line.split()[1])


def wait_for(address):
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(f"{address}/healthz", timeout=5)
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
