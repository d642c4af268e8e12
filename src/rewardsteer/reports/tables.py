"""Figures formatted as table cells, for pages and for the terminal."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

_NOTHING = "–"
_WIDE = 1000

METHOD_COLUMNS = (
    "method", "accuracy (95 %)", "reward", "gain over baseline (95 %)", "p (Holm)",
    "second judge's gain (95 %)", "RM calls", "ms", "LM calls", "RM tokens",
)
METHOD_FURTHER = frozenset({"LM calls", "RM tokens"})
# What the dagger of a method means, behind a caption.
OWN_JUDGE = " † The judge's own model guides this method, so its reward is too high."


def method_rows(
    methods: Mapping[str, Mapping[str, float]], *, marked: Collection[str] = ()
) -> list[list[str]]:
    """One row per method under `METHOD_COLUMNS`; a figure that was not measured becomes a dash.

    Methods that their own reward model judges are ``marked`` with a dagger.
    """
    return [
        [
            _marked(name, marked),
            _range(figures, "accuracy", "{:.3f}"),
            _spread(figures, "reward", "reward_stderr"),
            _range(figures, "reward_gain", "{:+.3f}"),
            _number(figures, "reward_gain_p", "{:.3f}"),
            _range(figures, "second_reward_gain", "{:+.3f}"),
            _number(figures, "rm_calls_per_token", "{:.2f}"),
            _number(figures, "seconds_per_token", "{:.2f}", 1e3),
            _number(figures, "lm_calls_per_token", "{:.2f}"),
            _number(figures, "rm_tokens_per_token", "{:.1f}"),
        ]
        for name, figures in methods.items()
    ]


SEED_COLUMNS = (
    "method", "accuracy (95 %)", "SD of accuracy", "reward", "SD of reward",
    "gain over baseline (95 %)", "SD of gain", "p (Holm)", "second judge's gain (95 %)",
    "SD of second gain", "reward, 95 % interval",
)
SEED_FURTHER = frozenset({"reward, 95 % interval"})


def seed_rows(
    methods: Mapping[str, Mapping[str, float]], *, marked: Collection[str] = ()
) -> list[list[str]]:
    """One row per method under `SEED_COLUMNS`; intervals are over runs and prompts, SD is the
    standard deviation of the runs' figures. ``marked`` as in `method_rows`."""
    return [
        [
            _marked(name, marked),
            _range(figures, "accuracy", "{:.3f}"),
            _number(figures, "accuracy_spread", "{:.3f}"),
            _number(figures, "reward", "{:+.3f}"),
            _number(figures, "reward_spread", "{:.3f}"),
            _range(figures, "reward_gain", "{:+.3f}"),
            _number(figures, "reward_gain_spread", "{:.3f}"),
            _number(figures, "reward_gain_p", "{:.3f}"),
            _range(figures, "second_reward_gain", "{:+.3f}"),
            _number(figures, "second_reward_gain_spread", "{:.3f}"),
            _ends(figures, "reward", "{:+.3f}"),
        ]
        for name, figures in methods.items()
    ]


AUROC_COLUMNS = ("reward model", "AUROC", "95 % interval")


def auroc_rows(models: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """One row per reward model under `AUROC_COLUMNS`."""
    return [
        [name, f"{f['auroc']:.3f}", _ends(f, "auroc")]
        for name, f in models.items()
    ]


PREFERENCE_COLUMNS = ("subset", "pairs", "accuracy", "95 % interval", "margin")


def preference_groups(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Figures of all comparisons, then of each subset when there are several."""
    several = figures["subsets"] if len(figures["subsets"]) > 1 else {}
    return {"all": figures["all"], **several}


def preference_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """All comparisons, then each subset when there are several, under `PREFERENCE_COLUMNS`."""
    return [
        [
            name, f"{f['count']}", f"{f['accuracy']:.3f}",
            _ends(f, "accuracy"), f"{f['margin']:+.3f}",
        ]
        for name, f in preference_groups(figures).items()
    ]


PREFERENCE_CONTROL_COLUMNS = ("score", "pairs", "accuracy (95 %)")


def preference_control_rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The reward, what each control reaches, and the reward within one source and per prompt, under
    `PREFERENCE_CONTROL_COLUMNS`; none for files of before there were controls."""
    found = figures.get("controls", {})
    rows = [("length alone", "length"), ("source alone", "source"),
            ("reward within source", "within_source"), ("reward, each prompt once", "by_prompt")]
    return [
        [label, f"{found[name]['count']:g}",
         between(found[name], "accuracy", "low", "high", "{:.3f}")]
        for label, name in rows if name in found
    ]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, split into several on a narrow terminal.

    Columns in which nothing was measured are left out.
    """
    from rich.console import Console

    measured = [
        index for index in range(len(columns))
        if index == 0 or any(row[index] != _NOTHING for row in rows)
    ]
    console = Console()
    # A file or a pipe has no width, so the table is not split.
    width = console.width if console.is_terminal else _WIDE
    wide = Console(width=_WIDE)
    parts: list[list[int]] = [[]]
    for index in measured[1:]:
        tried = _table(columns, rows, [0, *parts[-1], index])
        if parts[-1] and wide.measure(tried).maximum > width:
            parts.append([])
        parts[-1].append(index)
    console.print(title, soft_wrap=True, highlight=False, style="italic")
    for part in parts:
        table = _table(columns, rows, [0, *part])
        # A truncated figure would mislead, so a line that is still too long runs over.
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


def between(
    figures: Mapping[str, float], name: str, low: str, high: str, pattern: str
) -> str:
    """A figure with its interval behind it, ``0.912 (0.900, 0.924)``, where it has one."""
    value = pattern.format(figures[name])
    if low not in figures:
        return value
    return f"{value} ({pattern.format(figures[low])}, {pattern.format(figures[high])})"


def _marked(name: str, marked: Collection[str]) -> str:
    return f"{name} †" if name in marked else name


def _ends(figures: Mapping[str, float], name: str, pattern: str = "{:.3f}") -> str:
    if f"{name}_low" not in figures:
        return _NOTHING
    return " – ".join(pattern.format(figures[f"{name}_{end}"]) for end in ("low", "high"))


def _number(
    figures: Mapping[str, float], name: str, pattern: str, scale: float = 1.0
) -> str:
    return pattern.format(scale * figures[name]) if name in figures else _NOTHING


def _spread(figures: Mapping[str, float], name: str, error: str) -> str:
    if name not in figures:
        return _NOTHING
    tail = f" ± {figures[error]:.3f}" if error in figures else ""
    return f"{figures[name]:+.3f}{tail}"


def _range(figures: Mapping[str, float], name: str, pattern: str) -> str:
    # The baseline's difference to itself is no figure.
    ends = {f"{name}_low", f"{name}_high"}
    if name not in figures or all(figures.get(one, 1) == 0 for one in (name, *ends)):
        return _NOTHING
    return between(figures, name, f"{name}_low", f"{name}_high", pattern)
