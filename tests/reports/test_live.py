"""The live inspector in a real browser, against a server that answers as ours does."""

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rewardsteer.reports.inspector import live_page
from rewardsteer.reports.page import policy_of
from tests.reports.browser import CONTRAST, PATIENCE, Ear, screenshot, start, violations
from tests.reports.results import HOSTILE, inspection

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("axe_playwright_python", reason="axe is not installed")

pytestmark = pytest.mark.xdist_group("browser")
expect = playwright.expect
expect.set_options(timeout=PATIENCE)


class Handler(BaseHTTPRequestHandler):
    """Serves the page, and the next of the answers to whoever asks."""

    def do_GET(self):
        self.answer(200, self.server.page.encode(), {"Content-Type": "text/html; charset=utf-8"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), json.loads(body)))
        status, content, headers = self.server.answers.pop(0)
        self.answer(status, content.encode(), {"Content-Type": "application/json"} | headers)

    def answer(self, status, content, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.page = live_page(
        ["none", "farma"], default_method="farma", needs_key=True, goal=True
    )
    server.address = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as library:
        browser = start(library)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    server.asked, server.answers = [], []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.ear = Ear(page)
    page.add_init_script("window.boom = () => { window.boomed = true; };")
    page.goto(server.address)
    yield page
    assert {url for url in page.ear.requests if not url.startswith(server.address)} == set()
    assert page.evaluate("window.boomed") is None
    context.close()


def ask(page, **fields):
    for name, text in {"prompt": "7+8*3=", "key": "sesame", **fields}.items():
        page.locator(f"[name={name}]").fill(text)
    page.get_by_role("button", name="Inspect").click()


def test_it_asks_its_own_server_and_shows_what_comes_back(page, server):
    assert not page.locator("[data-inspector]").is_visible()
    server.answers = [(200, inspection(text="ab" + HOSTILE).model_dump_json(), {})]
    page.locator("[name=signal]").select_option("similarity")
    page.get_by_label("Threshold").fill("0.25")
    ask(page)
    expect(page.get_by_role("status")).to_have_text(f"{2 + len(HOSTILE)} tokens.")
    path, headers, body = server.asked[0]
    assert path == "/v1/inspect"
    assert headers["Authorization"] == "Bearer sesame"
    assert body == {
        "prompt": "7+8*3=", "completion": None, "method": "farma", "weight": 1, "max_tokens": 64,
        "temperature": 1, "seed": 0,
        "filter": {"signal": "similarity", "threshold": 0.25, "start": 5},
    }
    assert page.locator("[role=option]").count() == 2 + len(HOSTILE)
    server.answers = [(200, inspection("1", stop=None).model_dump_json(), {})]
    page.locator("[name=signal]").select_option("")
    ask(page, completion="15")
    expect(page.locator("[data-part=pick] option")).to_have_count(2)
    assert server.asked[1][2]["completion"] == "15"
    assert server.asked[1][2]["filter"] is None
    screenshot(page, "live")
    assert page.ear.troubles == []


@pytest.mark.parametrize(("answer", "told"), [
    ((429, '{"error": {"message": "Too many requests."}}', {"Retry-After": "7"}),
     "Too many requests. Try again in 7 s."),
    ((422, '{"detail": [{"msg": "weight: not a number"}]}', {}), "weight: not a number"),
    ((400, json.dumps({"detail": HOSTILE}), {}), HOSTILE.replace("\u2028", " ")),
    ((500, "<h1>oops</h1>", {}), "The server answered 500."),
])
def test_what_the_server_refuses_is_told(page, server, answer, told):
    server.answers = [answer]
    ask(page)
    expect(page.get_by_role("status")).to_have_text(told)
    assert page.get_by_role("button", name="Inspect").is_enabled()
    assert not page.locator("[data-inspector]").is_visible()


def test_a_prompt_is_needed(page, server):
    ask(page, prompt="")
    assert server.asked == []


def test_a_key_that_no_header_can_hold_is_refused_in_the_form(page, server):
    """fetch fails at it as at a server that is down."""
    ask(page, key="clé€")
    expect(page.locator("[name=key]:invalid")).to_have_count(1)
    assert page.get_by_role("status").inner_text() == ""
    assert server.asked == []


def test_it_may_ask_nobody_else(page):
    refused = page.evaluate("""async () => {
        const told = new Promise((done) => addEventListener(
            "securitypolicyviolation", (one) => done(one.effectiveDirective)));
        fetch("http://127.0.0.1:9/").catch(() => null);
        return told;
    }""")
    assert refused == "connect-src"


def test_labels_of_a_row_stand_on_one_line(page):
    tops = page.locator("form.ask label:not(.long)").evaluate_all(
        "(all) => all.map((one) => one.getBoundingClientRect().top)"
    )
    assert len(tops) > len({round(top) for top in tops}) == 2


def test_accessible_and_narrow(page, server):
    server.answers = [(200, inspection().model_dump_json(), {})]
    ask(page)
    expect(page.locator("[data-inspector]")).to_be_visible()
    assert violations(page, {}) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page, CONTRAST) == []
    page.set_viewport_size({"width": 360, "height": 700})
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("width", [375, 1280])
def test_long_tokens_stay_within_their_columns(page, server, width):
    record = inspection().model_dump(mode="json")
    for token in record["tokens"]:
        for name in ("policy", "reward_model", "guided"):
            token[name][0]["text"] = "<|im_end|>" + "internationalisation" * 2
            token[name][1]["value"] *= 1e4
            token[name][-1]["rank"] = 131072
    page.set_viewport_size({"width": width, "height": 800})
    server.answers = [(200, json.dumps(record), {})]
    ask(page)
    page.locator("[role=option]").nth(3).click()
    rows = page.evaluate("""() => [...document.querySelectorAll(".column li")].map((row) => {
        const box = (part) => { const b = part.getBoundingClientRect(); return [b.left, b.right]; };
        const rank = document.createRange();
        rank.selectNodeContents(row.querySelector(".rank"));
        return [row.closest(".column"), row, rank, row.querySelector(".glyph"),
                row.querySelector(".value")].map(box);
    })""")
    assert len(rows) == 3 * 6
    for column, row, rank, glyph, value in rows:
        assert column[0] <= row[0] <= rank[0] < rank[1] <= glyph[0]
        assert glyph[0] < glyph[1] <= value[0] < value[1] <= row[1]
        assert row[1] <= column[1]
    columns = sorted({tuple(column) for column, *_ in rows})
    assert len(columns) == (1 if width < 640 else 3)  # below each other on a phone
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(columns))
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_options_of_the_page():
    plain = live_page(["none"], default_method="none")
    assert 'name="key"' not in plain
    assert "by similarity" not in plain
    assert "connect-src 'self'" in policy_of(plain)
