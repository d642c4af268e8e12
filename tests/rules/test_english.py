"""Phrases that readers stumbled over stay out of the pages, and ARCHITECTURE.md stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md",
         *sorted((ROOT / "docs").rglob("*.md"))]
ODDITIES = (
    "an eye on the numbers", "the others are nowhere", "other company, other draws",
    "two wishes at once", "tells right from wrong", "foreseeing", "looks at",
    "knows before the end how", "belongs into",
    r"\ba training\b(?! (batch|or|run|set|row|pair|loop|step))",
    r"\ba scoring\b(?! run)", "dropping samples while they grow", "made anew", "what it buys",
    "what a unit of reward costs", "the way there", "for nothing", "answers right",
    r"(?<!within )\ba (token|question|second)\b(?=\s*\|)",
)
PATTERN = re.compile("|".join(ODDITIES), re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_odd_phrases(page):
    # A phrase may be broken over two lines.
    text = re.sub(r"\s+", " ", page.read_text())
    found = [text[max(0, one.start() - 30) : one.end() + 30] for one in PATTERN.finditer(text)]
    assert not found


def test_the_architecture_is_short():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 150
