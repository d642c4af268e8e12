"""What engines can do, in one table."""

from pathlib import Path

from rewardsteer.decoding.engines.registry import ABILITIES, ENGINES, MEANINGS
from rewardsteer.decoding.engines.transformers.engine import TransformersEngine

DOCS = Path(__file__).parents[2] / "docs" / "engines.md"


def test_engines_say_what_the_table_says():
    assert set(ENGINES.names()) == set(ABILITIES)
    assert all(can <= set(MEANINGS) for can in ABILITIES.values())
    assert TransformersEngine.abilities == ABILITIES["transformers"]


def test_the_documentation_has_the_same_table():
    text = DOCS.read_text(encoding="utf-8")
    for ability in MEANINGS:
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{ability}`: ")]
        cells = [cell.strip() for cell in row.strip("|").split("|")[1:]]
        found = {name for name, cell in zip(ABILITIES, cells, strict=True) if cell != "no"}
        assert found == {name for name, can in ABILITIES.items() if ability in can}
