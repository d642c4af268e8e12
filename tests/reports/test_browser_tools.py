"""The report page as a tool: sorted, filtered, taken along, pointed at, compared, linked to."""

import csv
import json
import time

import pytest

from tests.reports.browser import PHONE, screenshot
from tests.reports.results import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.slow]
expect = playwright.expect


def box_of(page, caption):
    return page.locator("[data-table]", has_text=caption).first


def column(box, place):
    return box.locator(f"tbody tr:visible > :nth-child({place + 1})").all_inner_texts()


def test_tables_are_sorted_and_filtered(visit):
    page = visit()
    box = box_of(page, "Mean reward ± standard error")
    given = column(box, 0)
    assert given == ["none", "best_of_n", "farma w=1", "farma w=2"]
    head = box.get_by_role("button", name="reward", exact=True)
    head.click()
    rewards = [float(one.split()[0].replace("−", "-")) for one in column(box, 2)]
    assert rewards == sorted(rewards, reverse=True)
    assert box.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    head.click()
    assert column(box, 2)[0].startswith(f"{min(rewards):+.3f}".replace("-", "−"))
    head.click()
    assert column(box, 0) == given
    gain = box.get_by_role("button", name="gain over baseline")
    for _ in range(2):  # what was not measured comes last, both ways
        gain.click()
        assert column(box, 0)[-1] == "none"
    large = box_of(page, "Votes and choices among k")
    before = large.locator("tbody tr:visible").count()
    large.get_by_role("searchbox").fill("correctness-goal k>=4")
    kept = large.locator("tbody tr:visible")
    assert 0 < kept.count() < before
    assert set(column(large, 0)) == {"correctness-goal"}
    assert min(map(float, column(large, 1))) >= 4


def test_the_deciding_columns_are_in_sight(visit):
    page = visit()
    box = box_of(page, "Mean reward ± standard error")
    assert not box.locator("th", has_text="LM calls").is_visible()
    assert box.locator(".scroll").evaluate("(one) => one.scrollWidth <= one.clientWidth")
    box.get_by_role("button", name="Show all columns").click()
    assert box.locator("th", has_text="LM calls").is_visible()
    phone = visit(PHONE, is_mobile=True, has_touch=True)
    box = box_of(phone, "Mean reward ± standard error")
    box.scroll_into_view_if_needed()
    cell = box.locator("tbody td").first.bounding_box()
    assert cell["x"] + cell["width"] <= PHONE["width"]
    screenshot(phone, "table-phone")


def test_tables_are_taken_along(visit, tmp_path):
    page = visit()
    box = box_of(page, "Mean reward ± standard error")
    shown = column(box, 1)
    rows = {}
    for kind in ("CSV", "JSON"):
        with page.expect_download() as kept:
            box.get_by_role("button", name=f"as {kind}").click()
        assert kept.value.suggested_filename.endswith(f".{kind.lower()}")
        kept.value.save_as(tmp_path / kind)
        text = (tmp_path / kind).read_bytes().decode()
        rows[kind] = json.loads(text) if kind == "JSON" else list(csv.DictReader(text.splitlines()))
    assert [one["method"] for one in rows["JSON"]] == column(box, 0)
    for plain, exact, cell in zip(rows["CSV"], rows["JSON"], shown, strict=True):
        three = [exact[f"accuracy (95 %){end}"] for end in ("", " low", " high")]
        assert cell == "{:.3f} ({:.3f}, {:.3f})".format(*three)
        assert [float(plain[f"accuracy (95 %){end}"]) for end in ("", " low", " high")] == three
        assert "LM calls" in exact  # columns out of sight too
    assert rows["JSON"][0]["gain over baseline (95 %)"] is None


def test_the_spread_of_runs_is_in_sight_told_and_taken_along(visit, tmp_path):
    page = visit()
    box = box_of(page, "SD is the standard deviation between the runs")
    assert box.locator(".scroll").evaluate("(one) => one.scrollWidth <= one.clientWidth")
    with page.expect_download() as kept:
        box.get_by_role("button", name="as JSON").click()
    kept.value.save_as(tmp_path / "kept")
    rows = {one["method"]: one for one in json.loads((tmp_path / "kept").read_text())}
    best = rows["best_of_n"]
    assert best["SD of reward"] > 0
    assert best["SD of gain"] > 0
    assert best["reward, 95 % interval low"] < best["reward"] < best["reward, 95 % interval high"]
    assert rows["none"]["SD of gain"] is None
    figure = page.locator("#runs figure", has_text="Mean reward").first
    figure.locator("[data-plot]").focus()
    told, seen = page.locator("[data-told]"), []
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        seen.append(told.inner_text().splitlines())
    assert seen[0][0] == "none"
    assert seen[0][2].startswith("standard deviation of the runs: ")
    assert [one[0] for one in seen[1:]] == [f"none, seed-{seed}" for seed in range(3)]
    screenshot(page, "runs")


def test_planted_text_stays_text_when_it_is_taken_along(visit, tmp_path):
    page = visit()
    box = box_of(page, "By subset.")
    with page.expect_download() as kept:
        box.get_by_role("button", name="as CSV").click()
    kept.value.save_as(tmp_path / "kept")
    rows = list(csv.reader((tmp_path / "kept").read_text().splitlines(keepends=True)))
    assert HOSTILE in [row[0] for row in rows]
    assert len({len(row) for row in rows}) == 1
    code = """([headings, rows]) => [markdown(headings, rows), csv(headings, rows)]"""
    made, plain = page.evaluate(code, [["a", "b"], [["=cmd|' /C calc'!A0", "x|y\n<b>*_z_"]]])
    assert made.splitlines()[2] == "| =cmd\\|' /C calc'!A0 | x\\|y \\<b\\>\\*\\_z\\_ |"
    assert plain.splitlines()[1].startswith("'=cmd")


def test_values_are_read_off_plots(visit):
    page = visit()
    figure = page.locator("#methods figure", has_text="Mean reward").first
    told, spots = page.locator("[data-told]"), figure.locator("circle")
    spots.first.scroll_into_view_if_needed()
    place = spots.first.bounding_box()
    page.mouse.move(place["x"] + 9, place["y"] + 6)
    expect(told).to_be_visible()
    words = told.inner_text().splitlines()
    assert words[0] == "none"
    assert words[1].startswith("mean reward: ")
    screenshot(page, "plot-value")
    page.keyboard.press("Escape")
    expect(told).to_be_hidden()
    figure.locator("[data-plot]").focus()
    seen = []
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        seen.append(told.inner_text().splitlines()[0])
    assert seen == ["none", "best_of_n", "farma w=1", "farma w=2"]


def test_the_matrix_tells_each_difference_and_is_walked_by_keys(visit):
    page = visit()
    table = page.locator("table.matrix").first
    cells = table.locator("[data-tip]")
    assert cells.count() == 12
    cells.first.focus()
    told = page.locator("[data-told]")
    assert told.inner_text().splitlines()[0] == "none − best_of_n"
    page.keyboard.press("ArrowDown")  # the diagonal is skipped
    assert told.inner_text().splitlines()[0] == "farma w=1 − best_of_n"
    for first, second in ((0, 1), (0, 3), (2, 3)):
        texts = [
            table.locator("tbody tr").nth(row).locator("td").nth(place).inner_text().strip("*")
            for row, place in ((first, second), (second, first))
        ]
        values = [float(one.replace("−", "-")) for one in texts]
        assert values[0] == -values[1]


def test_two_methods_are_compared_prompt_by_prompt(visit):
    page = visit()
    box = page.locator("[data-flips]")
    data = json.loads(box.locator("script").text_content())
    first, second = (data["values"][0][method] for method in (0, 3))
    box.locator("[name=first]").select_option("none")
    box.locator("[name=second]").select_option("farma w=2")
    above = [i for i in range(12) if first[i] > second[i]]
    below = [i for i in range(12) if first[i] < second[i]]
    assert box.locator("[data-counts]").inner_text().startswith(
        f"12 prompts: none alone is correct on {len(above)}, farma w=2 on {len(below)}, "
        f"equal on {12 - len(above) - len(below)}."
    )
    box.get_by_label("Prompts where").select_option("below")
    cards = box.locator("details")
    assert cards.count() == min(6, len(below))
    for card, place in zip(cards.all(), below, strict=False):
        assert card.locator(".asked").text_content() == data["prompts"][place][1]
        assert card.locator(".marks > span").all_inner_texts()[0].startswith("✗")
    cards.first.locator("summary").click()
    assert cards.first.locator(".text").all_text_contents() == [
        data["responses"][str(below[0])][method] for method in (0, 3)
    ]
    screenshot(page, "flips", full_page=True)
    box.get_by_label("By").select_option("reward")
    expect(box.locator("[data-counts]")).to_contain_text("none is higher on")


def test_a_link_opens_the_page_as_it_was(visit):
    page = visit()
    box = box_of(page, "Votes and choices among k")
    box.get_by_role("button", name="majority").click()
    box.get_by_role("searchbox").fill("goal & k>1")
    flips = page.locator("[data-flips]")
    flips.locator("[name=second]").select_option("farma w=1")
    samples = page.locator("[data-samples]")
    samples.get_by_label("Show").select_option("differ")
    samples.get_by_role("checkbox", name="best_of_n").uncheck()
    samples.locator("summary:visible").first.click()
    page.get_by_role("link", name="Methods").click()
    address = page.evaluate("location.hash")
    assert address.startswith("#methods&")
    other = visit(anchor=address)
    box = box_of(other, "Votes and choices among k")
    assert box.get_by_role("searchbox").input_value() == "goal & k>1"
    assert box.locator("th[aria-sort=descending]").inner_text().startswith("majority")
    assert other.locator("[data-flips]").locator("[name=second]").input_value() == "2"
    samples = other.locator("[data-samples]")
    assert samples.get_by_label("Show").input_value() == "differ"
    assert not samples.get_by_role("checkbox", name="best_of_n").is_checked()
    assert samples.locator("details[open]").count() == 1
    # The page scrolls once it stands as the link says.
    title, end = other.locator("#methods-title"), time.monotonic() + 10
    while title.bounding_box()["y"] >= 400:
        assert time.monotonic() < end, title.bounding_box()
        other.wait_for_timeout(100)
    # Links that others wrote break nothing.
    visit(anchor="#nowhere&methods-2.sort=99d&x=%E0%A4%A&&=1&completions-1.open=__proto__.<b>")
