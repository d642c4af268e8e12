"""Clients of model servers: the limit on a whole request."""

import asyncio
import socketserver
import threading
import time
from contextlib import contextmanager

import pytest

from rewardsteer.addresses import open_client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 100000\r\n"
SECONDS = 0.4


@contextmanager
def dripping(at_once, kind):
    """A server that sends the beginning of a response, then a byte now and then."""
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65536)
            self.request.sendall(at_once % kind)
            try:
                for _ in range(160):  # twice as long as a test may take
                    self.request.sendall(b"a")
                    time.sleep(SECONDS / 8)
            except OSError:
                pass

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()


def ask(url, *, asynchronous, stream):
    openai = pytest.importorskip("openai")
    client = open_client(
        openai, url, "NO_KEY", SECONDS, retries=0, asynchronous=asynchronous
    )
    question = {"model": "m", "messages": [{"role": "user", "content": "?"}]}

    async def wait():
        reply = await client.chat.completions.create(**question, stream=stream)
        async for _ in reply:
            pass

    with pytest.raises(openai.APITimeoutError):
        asyncio.run(wait()) if asynchronous else client.chat.completions.create(**question)


@pytest.mark.parametrize("at_once", [HEAD, HEAD + b"\r\n"], ids=["headers", "body"])
@pytest.mark.parametrize(("asynchronous", "stream"), [
    (False, False), (True, False), (True, True),
], ids=["blocking", "asynchronous", "streamed"])
def test_a_server_that_drips_is_left_in_time(at_once, asynchronous, stream):
    kind = b"text/event-stream" if stream else b"application/json"
    begin = time.monotonic()
    with dripping(at_once, kind) as url:
        ask(url, asynchronous=asynchronous, stream=stream)
    assert time.monotonic() - begin < 10 * SECONDS
