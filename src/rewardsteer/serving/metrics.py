"""Metrics in Prometheus' text format."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from rewardsteer.serving.threads import TextStage
    from rewardsteer.serving.worker import Worker

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "rewardsteer_requests", "Requests answered, by route and status.", ["route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "rewardsteer_request_seconds", "Seconds until a request was answered.", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )
        self._left = Counter(
            "rewardsteer_clients_left", "Requests whose client did not wait for the answer.",
            registry=self.registry,
        )

    def count(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def client_left(self) -> None:
        self._left.inc()

    def observe(self, worker: "Worker", texts: "TextStage") -> None:
        """Export the counters of a worker and of the tokenizing stage."""
        self.registry.register(_Observer(worker, texts))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Observer(Collector):
    """Reads the counters whenever metrics are requested."""

    def __init__(self, worker: "Worker", texts: "TextStage") -> None:
        self._worker, self._texts = worker, texts

    def collect(self) -> Iterator[Metric]:
        worker = self._worker
        for name, meaning, value in (
            ("texts_waiting", "Requests whose texts are being tokenized, or wait for it.",
             self._texts.waiting),
            ("rows_busy", "Rows being decoded.", worker.busy),
            ("rows_waiting", "Rows waiting for a place.", worker.waiting),
            ("rewards_waiting", "Completions waiting to be scored.", worker.waiting_rewards),
        ):
            yield GaugeMetricFamily(f"rewardsteer_{name}", meaning, value=value)
        for name, meaning, value in (
            ("steps", "Steps of decoding.", worker.steps),
            ("tokens_generated", "Tokens generated.", worker.tokens),
            ("completions_scored", "Completions scored.", worker.scored),
        ):
            yield CounterMetricFamily(f"rewardsteer_{name}", meaning, value=value)
