"""The live page."""

import re

import httpx
import pytest

from tests.serving.running import KEY, make_service, running


def test_the_page_is_safe(address):
    reply = httpx.get(f"{address}/")
    assert reply.headers["content-type"].startswith("text/html")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    for name, value in (("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"),
                        ("referrer-policy", "no-referrer"), ("cache-control", "no-store")):
        assert reply.headers[name] == value


def test_the_page_needs_no_key_and_asks_for_one(folder):
    with running(make_service(folder), key=KEY) as (address, _):
        reply = httpx.get(f"{address}/")
    assert reply.status_code == 200
    assert KEY not in reply.text
    assert 'type="password"' in reply.text


def test_methods_that_fit_are_offered(address):
    page = httpx.get(f"{address}/").text
    for name, there in (("farma", True), ("best_of_n", True), ("args", False),
                        ("goal_filter", False)):
        assert (f">{name}</option>" in page) == there


def field(page, name):
    [found] = re.findall(rf'<input [^>]*name="{name}"[^>]*>', page)
    return dict(re.findall(r'(\w+)="([^"]*)"', found))


@pytest.mark.parametrize(("mode", "temperature"), [("sample", "0.7"), ("greedy", "0")])
def test_the_form_begins_with_the_servers_settings(folder, mode, temperature):
    service = make_service(folder, max_inspect_tokens=48)
    given = {"weight": 2.5, "temperature": 0.7, "mode": mode}
    service.served.defaults = service.served.defaults.model_copy(update=given)
    with running(service) as (address, _):
        page = httpx.get(f"{address}/").text
    for name, value in (("weight", "2.5"), ("temperature", temperature), ("max_tokens", "48")):
        assert field(page, name)["value"] == value
    assert field(page, "max_tokens")["max"] == "48"


@pytest.mark.parametrize("options", [
    {"head": None, "method": "none"}, {"with_policy": False, "method": "none"},
])
def test_without_a_policy_and_a_reward_model_the_page_names_what_is_missing(folder, options):
    with running(make_service(folder, **options)) as (address, _):
        page = httpx.get(f"{address}/").text
        reply = httpx.post(f"{address}/v1/inspect", json={"prompt": "a", "completion": "b"})
    assert "<form" not in page
    assert "start the server with both (--model, --reward-model)" in page
    assert reply.status_code == 404
    assert "start the server with both" in reply.json()["error"]["message"]
