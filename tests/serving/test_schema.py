"""Whatever the schema allows, and much that it does not, never makes the server fail."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.serving.running import make_service, running

EXAMPLES = 12


@pytest.fixture(scope="module")
def address(folder):
    service = make_service(folder, max_tokens=6, max_rows=4, max_inspect_tokens=6, seconds=20)
    with running(service) as (address, _):
        yield address


def operations(address):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    return {one.ok().label: one.ok() for one in schema.get_all_operations()}


@pytest.mark.parametrize("label", [
    "POST /v1/completions", "POST /v1/chat/completions", "POST /v1/rewards", "POST /get_reward",
    "POST /v1/inspect", "POST /classify", "POST /pooling", "POST /score", "POST /rerank",
    "POST /tokenize", "GET /v1/models", "GET /v1/models/{model}", "GET /healthz", "GET /metrics",
])
def test_no_server_error(address, label):
    operation = operations(address)[label]
    seen = set()
    with httpx.Client(timeout=60):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if label.startswith("GET") and mode is GenerationMode.NEGATIVE:
                continue

            @settings(max_examples=EXAMPLES if "POST" in label else 5, deadline=None,
                      derandomize=True, database=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                reply = case.call()
                seen.add(reply.status_code)
                assert reply.status_code < 500, (case.as_curl_command(), reply.text)

            ask()
    if label in ("GET /v1/models", "GET /healthz", "GET /metrics"):
        assert seen == {200}
    elif "POST" in label:
        # Both kinds of answers were met.
        assert 400 in seen or 415 in seen


def test_the_schema_names_every_route(address):
    assert set(operations(address)) == {
        "POST /v1/completions", "POST /v1/chat/completions", "POST /v1/rewards",
        "POST /get_reward", "POST /v1/inspect", "POST /classify", "POST /pooling", "POST /score",
        "POST /rerank", "POST /tokenize", "GET /v1/models", "GET /v1/models/{model}",
        "GET /healthz", "GET /metrics",
    }
