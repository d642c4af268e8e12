"""The report page in a real browser: what a reader sees, points at and types."""

import re

import pytest

from rewardsteer.reports.runs import write_runs_page
from tests.reports.browser import CONTRAST, PATIENCE, PHONE, screenshot, violations
from tests.reports.results import inspection, write_lines

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("axe_playwright_python", reason="axe is not installed")

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.slow]
expect = playwright.expect
expect.set_options(timeout=PATIENCE)


def background(page):
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


def is_wider_than_the_window(page):
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")


def tokens(box):
    return box.locator("[role=option]")


def styles(box, name):
    return tokens(box).evaluate_all(
        "(all, name) => all.map((one) => getComputedStyle(one)[name])", name
    )


def inspector(page):
    return page.locator("[data-inspector]").first


def test_it_loads_shows_all_sections_and_asks_nobody(visit):
    page = visit()
    titles = page.locator("main h2").all_inner_texts()
    assert titles == [
        "At a glance", "Training", "Preferences", "Correctness", "Several runs", "Methods",
        "Token by token", "Completions", "Settings",
    ]
    assert page.locator("figure svg").count() > 20
    assert not is_wider_than_the_window(page)
    screenshot(page, "report-light", full_page=True)


def test_all_plots_have_one_scale_and_own_names(visit):
    page = visit()
    sizes = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map((one) => one.viewBox.baseVal.width)"
    )
    assert len(set(sizes)) == 1
    names = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(names) == len(set(names))


def test_only_its_own_script_runs(visit):
    page = visit(provoked="Content Security Policy")
    page.evaluate("""() => {
        window.refused = [];
        addEventListener("securitypolicyviolation", (one) => refused.push(one.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "boom()";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<b onclick='boom()' id='trap'>x</b>");
        document.getElementById("trap").click();
    }""")
    page.wait_for_function("refused.length >= 2")
    assert set(page.evaluate("refused")) == {"script-src-elem", "script-src-attr"}
    assert page.evaluate("window.boomed") is None


def test_pointing_at_a_token_shows_its_alternatives(visit):
    page = visit()
    box = inspector(page)
    box.scroll_into_view_if_needed()
    detail = box.get_by_role("region", name="The token in detail")
    chosen = detail.locator(".place").inner_text()
    assert chosen == "token 12 of 24"  # where the filter stops
    tokens(box).nth(3).hover()
    expect(detail.locator(".place")).to_have_text("token 4 of 24")
    assert detail.locator(".head .glyph").inner_text() == "="
    columns = detail.locator(".column")
    assert columns.locator("h3").all_inner_texts() == ["policy", "reward model", "both"]
    for index in range(3):
        rows = columns.nth(index).locator("li")
        assert rows.count() == 6
        assert columns.nth(index).locator("li.taken .glyph").all_inner_texts() == ["="]
        assert rows.last.locator(".rank").inner_text() == "37"
    screenshot(page, "inspector-hover")
    page.mouse.move(5, 5)
    expect(detail.locator(".place")).to_have_text(chosen)


def test_the_keyboard_reads_token_by_token(visit):
    page = visit()
    box = inspector(page)
    options = tokens(box)
    assert box.locator("[role=option][tabindex='0']").count() == 1
    options.nth(11).focus()

    def at():
        return page.evaluate("Number(document.activeElement.id.split('-').pop())")

    for key, place in (
        ("ArrowRight", 12), ("ArrowLeft", 11), ("Home", 0), ("ArrowLeft", 0), ("End", 23),
        ("ArrowRight", 23), ("PageUp", 13), ("PageDown", 23), ("Home", 0),
    ):
        page.keyboard.press(key)
        assert at() == place, key
    page.keyboard.press("ArrowDown")  # the line below begins after the line break, at token 12
    assert at() == 12
    page.keyboard.press("ArrowUp")
    assert at() == 0
    assert box.locator("[aria-selected=true]").count() == 1
    expect(box.locator(".detail .place")).to_have_text("token 1 of 24")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") != "option"


def test_what_a_screen_reader_is_told(visit):
    box = inspector(visit())
    assert box.get_by_role("listbox").get_attribute("aria-label").endswith("coloured by reward")
    told = [one.get_attribute("aria-label") for one in tokens(box).all()]
    assert re.fullmatch(
        r"token 4 of 24: =, reward [+−]\d\.\d\d, change of reward [+−]\d\.\d\d, similarity to the "
        r"goal [+−]\d\.\d\d, moved by guidance [<\d.]+ %", told[3],
    )
    assert "line break" in told[11]
    assert told[11].endswith("the filter stops here")
    assert told[12].endswith("after the filter's stop")
    assert "filter" not in told[10]


def test_colours_follow_the_chosen_signal_and_are_not_all(visit):
    page = visit()
    box = inspector(page)
    seen = set()
    for name in ("reward", "change of reward", "similarity to the goal", "moved by guidance"):
        box.get_by_role("radio", name=name, exact=True).check(force=True)
        assert box.get_by_role("listbox").get_attribute("aria-label").endswith(name)
        seen.add(tuple(styles(box, "backgroundColor")))
        both_sides = {"solid"} if name == "moved by guidance" else {"solid", "dotted"}
        assert set(styles(box, "borderBottomStyle")) == both_sides
    assert len(seen) == 4
    box.locator("select").select_option(index=1)
    assert tokens(box).first.locator(".glyph").inner_text() == "a"
    assert box.locator("[data-part=verdict]").inner_text() == "✓ correct"
    assert box.locator(".flag").count() == 0


def test_completions_are_searched_filtered_and_sorted(visit):
    page = visit()
    box = page.locator("[data-samples]")
    cards = box.locator("details.sample:visible")
    count = box.locator("output")
    assert cards.count() == 8
    box.get_by_role("button", name="Show all 12").click()
    assert cards.count() == 12
    box.get_by_label("Search").fill("PREFIX 3")
    expect(count).to_have_text("1 of 12 prompts")
    assert cards.locator(".asked").all_inner_texts() == ["Say something about prefix 3."]
    box.get_by_label("Search").fill("")
    box.get_by_label("Show").select_option("differ")
    for card in cards.all():
        card.locator("summary").click()
        verdicts = card.locator(".by").all_inner_texts()
        assert any("✓ correct" in one for one in verdicts)
        assert any("✗ incorrect" in one for one in verdicts)
    box.get_by_label("Show").select_option("all")
    for card in cards.all():
        if card.get_attribute("open") is None:
            card.locator("summary").click()
    box.get_by_role("checkbox", name="best_of_n").uncheck()
    assert box.locator(".answers [data-method='1']:visible").count() == 0
    assert box.locator(".answers [data-method='2']:visible").count() == 12
    box.get_by_label("Order").select_option("spread")
    spreads = [
        max(found) - min(found) for found in (
            [float(one.get_attribute("data-reward")) for one in card.locator("[data-reward]").all()]
            for card in box.locator("details.sample").all()
        )
    ]
    assert spreads == sorted(spreads, reverse=True)


def test_light_and_dark(visit):
    page = visit(color_scheme="dark")
    assert background(page) < 60
    screenshot(page, "report-dark", full_page=True)
    button = page.get_by_role("button", name="Theme")
    assert button.inner_text() == "Theme: system"
    button.click()
    button.click()
    assert button.inner_text() == "Theme: light"
    assert background(page) > 200
    axis = page.locator("figure svg text").first
    assert axis.evaluate("(one) => getComputedStyle(one).fill") == page.evaluate(
        "getComputedStyle(document.body).color"
    )
    page.reload()
    assert background(page) > 200  # it is remembered


def test_a_phone_needs_no_sideways_scrolling(visit):
    page = visit(PHONE, is_mobile=True, has_touch=True)
    assert not is_wider_than_the_window(page)
    box = inspector(page)
    tokens(box).nth(2).tap()
    expect(box.locator(".detail .place")).to_have_text("token 3 of 24")
    assert not is_wider_than_the_window(page)
    box.evaluate("(one) => one.scrollIntoView()")
    screenshot(page, "inspector-phone")
    screenshot(page, "report-phone", full_page=True)
    page.set_viewport_size({"width": 320, "height": 600})
    assert not is_wider_than_the_window(page)


def test_paper_shows_what_was_folded_and_no_controls(visit):
    page = visit(color_scheme="dark")
    page.evaluate("""() => {
        window.opened = null;
        addEventListener("beforeprint", () => {
            opened = document.querySelectorAll("details[open]").length;
        });
    }""")
    pdf = page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    assert page.evaluate("opened") == page.locator("details").count() > 0
    page.emulate_media(media="print")
    assert background(page) == 255
    assert not page.locator("nav").is_visible()
    assert not page.locator("[data-samples] form").is_visible()
    assert page.locator("[data-inspector] .token").first.is_visible()
    page.set_viewport_size({"width": 794, "height": 1123})
    screenshot(page, "report-print", full_page=True)


def test_accessible_by_the_rules_of_axe(visit):
    assert violations(visit(), {"rules": {"color-contrast": {"enabled": False}}}) == []


def test_colours_are_legible(visit):
    # One of each kind of block; the rest has the same colours, and looking takes long.
    within = (
        "header", "nav", "#overview", "#training", "#methods", "#tokens", "#completions",
        "#settings",
    )
    page = visit()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page, CONTRAST, within) == [], scheme


def test_without_scripts_all_but_the_inspector_is_there(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("details.sample:visible").count() == 12
    assert page.locator("table:visible .further:visible").count() > 0
    assert page.locator("figure svg").first.is_visible()
    assert not page.locator("[data-inspector]").is_visible()
    assert "needs JavaScript" in page.locator("#tokens").inner_text()


def test_completions_are_named_from_where_their_prompts_differ(browser, tmp_path):
    """Chat templates begin all prompts alike, often for longer than what a list shows."""
    begin = "<|im_start|>system\nYou are a helpful assistant with a long name.\n<|im_start|>user\n"
    asked = ["What rains?", "What snows?", "Who?"]
    write_lines(tmp_path / "inspections.jsonl", [
        inspection(str(number)).model_copy(update={"label": "", "prompt": begin + text})
        for number, text in enumerate(asked)
    ])
    write_runs_page([tmp_path], tmp_path / "report.html")
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    names = inspector(page).locator("select option").all_inner_texts()
    assert names == [f"{number}: {text}" for number, text in enumerate(asked)]
