"""Differences of all pairs of methods on the same prompts, with tests, and by prompt."""

import math
from collections.abc import Callable, Mapping, Sequence

from rewardsteer.evaluation.pairwise import FEWEST, PairDifference, all_pairs
from rewardsteer.reports.results import Outcome
from rewardsteer.reports.sections import Block, Cell, Flips, Folded, Matrix, Prose, Table

Outcomes = Mapping[str, Sequence[Outcome]]
# A function: ids of prompts → by id the responses of all methods, in their order.
Responses = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]

PAIR_COLUMNS = (
    "first", "second", "difference (95 %)", "p, Holm", "p", "first above", "second above",
)
_FIRST = ("accuracy", "reward")  # metrics that come first
_LEVEL = 0.05
_TEXT = 150_000  # characters of responses that a page holds for this
_DIGITS = 4


def pair_blocks(outcomes: Outcomes, responses: Responses) -> list[Block]:
    """The matrix of differences, all pairs as a table, and the prompts on which two methods differ;
    nothing for fewer than two methods.

    Args:
        outcomes: outcomes by method.
        responses: a function that reads the responses to some prompts.
    """
    shared = _shared(outcomes)
    measures = _measures(shared)
    if len(shared) < 2 or not measures:
        return []
    blocks: list[Block] = []
    for name in measures[:2]:
        found = all_pairs({
            method: [row.metrics[name] for row in rows] for method, rows in shared.items()
        })
        if not found:
            continue
        matrix = _matrix(name, list(shared), found, len(next(iter(shared.values()))))
        if blocks:
            blocks.append(Folded(f"Differences in {name}", [matrix, _table(name, found)]))
        else:
            blocks += [matrix, Folded(f"All pairs by {name}", [_table(name, found)])]
    if not blocks:
        blocks.append(Prose(f"Fewer than {FEWEST} prompts: no tests of differences."))
    return [*blocks, flips(shared, measures, responses)]


def _shared(outcomes: Outcomes) -> dict[str, list[Outcome]]:
    """Outcomes of the prompts that all methods answered, in one order."""
    by_id = {method: {row.id: row for row in rows} for method, rows in outcomes.items() if rows}
    if not by_id:
        return {}
    first = next(iter(by_id.values()))
    keys = [key for key in first if all(key in rows for rows in by_id.values())]
    return {method: [rows[key] for key in keys] for method, rows in by_id.items() if keys}


def _measures(outcomes: Outcomes) -> list[str]:
    """Metrics that every method has for every prompt, accuracy and reward first."""
    every = [row.metrics.keys() for rows in outcomes.values() for row in rows]
    if not every:
        return []
    known = [name for name in every[0] if all(name in one for one in every) and name != "surprise"]
    return sorted(known, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


def _matrix(
    name: str, methods: Sequence[str], found: Sequence[PairDifference], prompts: int
) -> Matrix:
    cells: dict[tuple[str, str], Cell] = {}
    for one in found:
        for first, second, sign in ((one.first, one.second, 1), (one.second, one.first, -1)):
            difference = sign * one.difference
            ends = sorted((sign * one.low, sign * one.high))
            sure = one.holm < _LEVEL
            cells[first, second] = Cell(
                _signed(difference, 2) + ("*" if sure else ""),
                f"{first} − {second}\n{name}: {_signed(difference)} ({_signed(ends[0])} to "
                f"{_signed(ends[1])})\np {_chance(one.p)}, by Holm {_chance(one.holm)}",
                ("better" if difference > 0 else "worse") if sure else "",
            )
    return Matrix(
        f"Difference in {name}, row minus column, on {prompts} prompts. * marks differences with "
        f"p < {_LEVEL:g} by Holm's method for all {len(found)} pairs.",
        methods, [[cells.get((row, column)) for column in methods] for row in methods],
    )


def _table(name: str, found: Sequence[PairDifference]) -> Table:
    return Table(
        f"Differences in {name} of two methods on the same prompts; prompts on which one is above "
        "the other.", PAIR_COLUMNS,
        [
            [
                one.first, one.second,
                f"{_signed(one.difference)} ({_signed(one.low)}, {_signed(one.high)})",
                _chance(one.holm), _chance(one.p), str(one.above), str(one.below),
            ]
            for one in sorted(found, key=lambda one: one.holm)
        ],
    )


def flips(outcomes: Outcomes, measures: Sequence[str], responses: Responses) -> Flips:
    """The block of prompts on which two methods differ. It holds responses for those with the
    largest differences, as many as fit into a page."""
    methods = list(outcomes)
    prompts = [(row.id, row.prompt) for row in outcomes[methods[0]]]
    values = [
        [[_rounded(row.metrics[name]) for row in outcomes[method]] for method in methods]
        for name in measures
    ]
    spreads = [
        max(column) - min(column)
        for column in zip(*([value or 0.0 for value in one] for one in values[0]), strict=True)
    ]
    order = sorted(range(len(prompts)), key=lambda place: -spreads[place])
    sizes = [sum(outcomes[method][place].length for method in methods)
             for place in range(len(prompts))]
    chosen: dict[str, int] = {}
    left = _TEXT
    for place in order:
        if sizes[place] <= left:
            chosen[prompts[place][0]] = place
            left -= sizes[place]
    texts = responses(list(chosen))
    return Flips(
        "Prompts on which two methods differ, largest difference first.", methods, measures,
        prompts, values,
        {str(place): list(texts[key]) for key, place in chosen.items()},
    )


def _rounded(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() else short


def _signed(value: float, digits: int = 3) -> str:
    rounded = round(value, digits) + 0.0  # turns -0.0 into 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−") if rounded else f"{0:.{digits}f}"


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
