"""Tables as result files and as sections of RESULTS.md."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Row
from benchmarks.machine import describe, sentence
from rewardsteer.outputs import write_json, write_text

END = "<!-- end -->"
_COLUMNS = ("case", "ours", "other", "ratio", "low", "high", "runs", "unit")


@dataclass(frozen=True)
class Table:
    """One measurement.

    Attributes:
        run: measures and returns the rows: dicts with ``case``, ``ours``, ``unit``; ``other`` and
            ``ratio`` where the other side was measured; ``low``, ``high`` and ``runs`` over several
            runs; and any further columns. Raises `CannotRun` where it cannot.
        other: heading of the column that ours is compared with.
        setup: models, data and settings, in sentences.
    """

    run: Callable[[], list[Row]]
    other: str
    setup: str


def publish(name: str, table: Table, rows: Sequence[Row], folder: Path) -> str:
    """Write ``results/NAME.json`` and the table's section of ``RESULTS.md``; returns the section.

    Args:
        name: name of the table.
        table: the measurement.
        rows: its results.
        folder: the folder of RESULTS.md and ``results``.
    """
    machine, today = describe(), datetime.date.today().isoformat()
    command = f"make bench TABLE={name}"
    write_json(folder / "results" / f"{name}.json", {
        "table": name, "command": command, "date": today, "machine": machine,
        "setup": table.setup, "other": table.other, "rows": list(rows),
    })
    section = f"`{command}`, {today}. {sentence(machine)}. {table.setup}\n\n" + markdown(
        rows, table.other
    )
    place = folder / "RESULTS.md"
    text = place.read_text() if place.exists() else "# Measured side by side\n"
    write_text(place, refresh(text, name, section))
    return section


def refresh(text: str, name: str, section: str) -> str:
    """A text with the section between a table's markers replaced, or added at the end.

    Raises:
        ValueError: the table's first marker has no end marker before the next table.
    """
    begin = f"<!-- table: {name} -->"
    before, found, rest = text.partition(begin)
    block = f"{begin}\n{section}\n{END}"
    if not found:
        return f"{text.rstrip()}\n\n## {name}\n\n{block}\n"
    old, closed, after = rest.partition(END)
    if not closed or "<!-- table:" in old:
        raise ValueError(f"The section {begin} is not closed; put {END} where its table ends.")
    return before + block + after


def markdown(rows: Sequence[Row], other: str) -> str:
    """A Markdown table; the least and greatest ratio of the runs follow the median."""
    extra = list(dict.fromkeys(key for row in rows for key in row if key not in _COLUMNS))
    lines = [["case", "ours", other, "unit", "ratio", *extra], ["---"] * (5 + len(extra))]
    for row in rows:
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        if "runs" in row:
            ratio += f" ({row['low']:.2f} … {row['high']:.2f})"
        lines.append([
            row["case"], _figure(row["ours"]), _figure(row.get("other", "")), row["unit"], ratio,
            *(_figure(row.get(key, "")) for key in extra),
        ])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _figure(value: object) -> str:
    """A number with three digits, or with all digits before the decimal point if there are more."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
