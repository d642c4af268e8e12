"""Figures formatted as table cells, for pages and for the terminal."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from rewardsteer.reports.sections import NOTHING, Table

LOW_HIGH = ("low", "high")  # names of an interval's ends among figures with one interval
_WIDE = 1000

Figures = Mapping[str, Any]
# Heading of a column → function that formats its cell from a row's figures.
Cells = Mapping[str, Callable[[Figures], str]]


def number(figures: Figures, name: str, pattern: str = "{:.3f}", scale: float = 1.0) -> str:
    """A figure alone; a dash where it was not measured."""
    return pattern.format(scale * figures[name]) if name in figures else NOTHING


def between(
    figures: Figures, name: str, pattern: str = "{:.3f}", *, ends: tuple[str, str] | None = None
) -> str:
    """A figure, followed by its interval if it has one, ``0.912 (0.900, 0.924)``; a dash where it
    was not measured. ``ends``: names of the interval's ends; default: ``name_low`` and
    ``name_high``."""
    if name not in figures:
        return NOTHING
    value, (low, high) = pattern.format(figures[name]), ends or (f"{name}_low", f"{name}_high")
    if low not in figures:
        return value
    return f"{value} ({pattern.format(figures[low])}, {pattern.format(figures[high])})"


def _ends(figures: Figures, name: str, pattern: str = "{:.3f}") -> str:
    if f"{name}_low" not in figures:
        return NOTHING
    return " – ".join(pattern.format(figures[f"{name}_{end}"]) for end in LOW_HIGH)


def _with_error(figures: Figures, name: str) -> str:
    tail = f" ± {figures[f'{name}_stderr']:.3f}" if f"{name}_stderr" in figures else ""
    return number(figures, name, "{:+.3f}") + tail


def _gain(figures: Figures, name: str) -> str:
    # The baseline's difference to itself is not shown.
    if all(figures.get(one, 1) == 0 for one in (name, f"{name}_low", f"{name}_high")):
        return NOTHING
    return between(figures, name, "{:+.3f}")


_METHOD: Cells = {
    "accuracy (95 %)": lambda one: between(one, "accuracy"),
    "reward": lambda one: _with_error(one, "reward"),
    "gain over baseline (95 %)": lambda one: _gain(one, "reward_gain"),
    "p (Holm)": lambda one: number(one, "reward_gain_p"),
    "second judge's gain (95 %)": lambda one: _gain(one, "second_reward_gain"),
    "RM calls": lambda one: number(one, "rm_calls_per_token", "{:.2f}"),
    "ms": lambda one: number(one, "seconds_per_token", "{:.2f}", 1e3),
    "LM calls": lambda one: number(one, "lm_calls_per_token", "{:.2f}"),
    "RM tokens": lambda one: number(one, "rm_tokens_per_token", "{:.1f}"),
}
METHOD_COLUMNS = ("method", *_METHOD)
METHOD_FURTHER = frozenset({"LM calls", "RM tokens"})
# Figures over several runs: intervals are over runs and prompts, SD is over the runs' figures.
_SEEDS: Cells = {
    "accuracy (95 %)": lambda one: between(one, "accuracy"),
    "SD of accuracy": lambda one: number(one, "accuracy_spread"),
    "reward": lambda one: number(one, "reward", "{:+.3f}"),
    "SD of reward": lambda one: number(one, "reward_spread"),
    "gain over baseline (95 %)": lambda one: _gain(one, "reward_gain"),
    "SD of gain": lambda one: number(one, "reward_gain_spread"),
    "p (Holm)": lambda one: number(one, "reward_gain_p"),
    "second judge's gain (95 %)": lambda one: _gain(one, "second_reward_gain"),
    "SD of second gain": lambda one: number(one, "second_reward_gain_spread"),
    "reward, 95 % interval": lambda one: _ends(one, "reward", "{:+.3f}"),
}
SEED_COLUMNS = ("method", *_SEEDS)
SEED_FURTHER = frozenset({"reward, 95 % interval"})
# Explanation of a method's dagger, appended to a caption.
OWN_JUDGE = " † The judge's own model guides this method, so its reward is too high."


def cell_rows(
    figures: Mapping[str, Figures], cells: Cells, marked: Collection[str] = ()
) -> list[list[str]]:
    """One row per name: the name, with a dagger where it is ``marked``, and its cells."""
    return [
        [f"{name} †" if name in marked else name, *(cell(own) for cell in cells.values())]
        for name, own in figures.items()
    ]


def method_rows(methods: Mapping[str, Figures], *, marked: Collection[str] = ()) -> list[list[str]]:
    """One row per method under `METHOD_COLUMNS`; methods that their own reward model judges are
    ``marked``."""
    return cell_rows(methods, _METHOD, marked)


def seed_rows(methods: Mapping[str, Figures], *, marked: Collection[str] = ()) -> list[list[str]]:
    """One row per method as in `method_rows`, over several runs, under `SEED_COLUMNS`."""
    return cell_rows(methods, _SEEDS, marked)


_AUROC: Cells = {
    "AUROC": lambda one: number(one, "auroc"), "95 % interval": lambda one: _ends(one, "auroc"),
}
AUROC_COLUMNS = ("reward model", *_AUROC)


def auroc_rows(models: Mapping[str, Figures]) -> list[list[str]]:
    """One row per reward model under `AUROC_COLUMNS`."""
    return cell_rows(models, _AUROC)


_PREFERENCE: Cells = {
    "pairs": lambda one: number(one, "count", "{:.0f}"),
    "accuracy": lambda one: number(one, "accuracy"),
    "95 % interval": lambda one: _ends(one, "accuracy"),
    "margin": lambda one: number(one, "margin", "{:+.3f}"),
}
PREFERENCE_COLUMNS = ("subset", *_PREFERENCE)


def preference_groups(figures: Figures) -> dict[str, Figures]:
    """Figures of all comparisons, then of each subset when there are several."""
    several = figures["subsets"] if len(figures["subsets"]) > 1 else {}
    return {"all": figures["all"], **several}


def preference_rows(figures: Figures) -> list[list[str]]:
    """All comparisons, then each subset when there are several, under `PREFERENCE_COLUMNS`."""
    return cell_rows(preference_groups(figures), _PREFERENCE)


_CONTROLS: Cells = {
    "pairs": lambda one: number(one, "count", "{:.0f}"),
    "accuracy (95 %)": lambda one: between(one, "accuracy", ends=LOW_HIGH),
}
PREFERENCE_CONTROL_COLUMNS = ("score", *_CONTROLS)


def preference_control_rows(figures: Figures) -> list[list[str]]:
    """Rows of the reward, of each control, and of the reward within one source and per prompt,
    under `PREFERENCE_CONTROL_COLUMNS`; none for older files without controls."""
    found = figures.get("controls", {})
    labels = {"length": "length alone", "source": "source alone",
              "within_source": "reward within source", "by_prompt": "reward, each prompt once"}
    return cell_rows(
        {label: found[name] for name, label in labels.items() if name in found}, _CONTROLS
    )


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, split into several on a narrow terminal.

    Columns in which nothing was measured are left out.
    """
    from rich.console import Console

    console = Console()
    # A file or a pipe has no width, so the table is not split.
    width = console.width if console.is_terminal else _WIDE
    wide = Console(width=_WIDE)
    parts: list[list[int]] = [[]]
    for index in Table(title, columns, rows).measured[1:]:
        tried = _table(columns, rows, [0, *parts[-1], index])
        if parts[-1] and wide.measure(tried).maximum > width:
            parts.append([])
        parts[-1].append(index)
    console.print(title, soft_wrap=True, highlight=False, style="italic")
    for part in parts:
        table = _table(columns, rows, [0, *part])
        # Figures are never truncated: a line that is still too long exceeds the width.
        Console(width=max(width if console.is_terminal else 0, wide.measure(table).maximum)).print(
            table
        )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: Sequence[int]) -> Any:
    from rich.table import Table

    table = Table()
    for index in chosen:
        justify: Any = "left" if index == 0 else "right"
        table.add_column(columns[index], justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(row[index] for index in chosen))
    return table


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, without a last line break."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
