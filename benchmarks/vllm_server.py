"""vLLM's own OpenAI server in a process of its own, for benchmarks and tests."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

_START_SECONDS = 600  # half a minute where nothing else runs


class VLLMServer:
    """A server of a model in float32, without compiled graphs; it ends with the ``with`` block.

    Args:
        log: file for all that it writes.
        model: folder of the model.
        length: longest row, tokens.
        options: further options of its command.
        environment: further variables.

    Attributes:
        url: its address.
    """

    def __init__(
        self, log: Path, model: Path, length: int, *options: str, **environment: str
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.url, self._log = f"http://127.0.0.1:{port}", log
        with log.open("w") as stream:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
                 "--dtype", "float32", "--enforce-eager", "--max-model-len", str(length),
                 "--host", "127.0.0.1", "--port", port, *options],
                stdout=stream, stderr=subprocess.STDOUT, env=os.environ | environment,
            )

    def wait(self) -> Self:
        """Return once it answers.

        Raises:
            RuntimeError: it has ended, or takes too long; with the end of its log.
        """
        end = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/health", timeout=5),  # noqa: S310
            ):
                return self
            time.sleep(0.5)
        raise RuntimeError(f"vLLM's server did not start:\n{self._log.read_text()[-3000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
