"""The live page."""

import httpx

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
