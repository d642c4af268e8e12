"""A page with results of every kind, in a browser that hears what must not happen."""

import pytest

from rewardsteer.reports.runs import write_runs_page
from tests.reports.browser import DESK, PATIENCE, Ear, start
from tests.reports.results import everything


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as library:
        browser = start(library)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    write_runs_page([everything(root / "runs")], root / "report.html")
    return (root / "report.html").as_uri()


@pytest.fixture
def visit(browser, address):
    """Opens the page; afterwards nothing may have gone wrong or left the page."""
    opened = []

    def open_page(size=DESK, provoked=None, anchor="", **options):
        context = browser.new_context(viewport=size, **options)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        ear = Ear(page)
        page.add_init_script("window.boom = () => { window.boomed = true; };")
        page.goto(address + anchor)
        opened.append((context, page, ear, provoked))
        return page

    yield open_page
    for context, page, ear, provoked in opened:
        assert {one.split("#")[0] for one in ear.requests} == {address}
        assert [one for one in ear.troubles if provoked is None or provoked not in one] == []
        if page.evaluate("'boom' in window"):
            assert page.evaluate("window.boomed") is None
        context.close()
