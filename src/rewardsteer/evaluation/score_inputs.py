"""Inputs of `rewardsteer score`: rows of prompt and completion, or solutions in many layouts.

Solutions are written out once, a row each in our layout, so that they are scored like any other
file of rows: a shard at a time.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from rewardsteer.data.rows import JsonlRows, Rows, open_rows
from rewardsteer.data.solutions import GREEDY, read_solution_rows
from rewardsteer.data.sources.files import fields_of
from rewardsteer.data.sources.messages import parse_tools
from rewardsteer.data.sources.reading import read_rows
from rewardsteer.data.sources.turns import read_pair
from rewardsteer.errors import ConfigError, DataError, OutputError, RewardsteerError
from rewardsteer.evaluation.benchmarks import load_problems
from rewardsteer.evaluation.grading import attach_problems, grade
from rewardsteer.records import Solution

Row = dict[str, Any]
_OF_PAIRS = {"chosen", "rejected"}
# Fields that plain rows of prompt and completion do not have.
_OF_SOLUTIONS = {"question", "problem", "question_id", "sample", "is_correct", "expected_answer"}


def plain_rows(path: Path, step: int) -> Rows | None:
    """Checked rows of prompt and completion; None when the input holds solutions instead.

    Raises:
        DataError: malformed rows; names the line.
    """
    if path.is_dir() or _holds_solutions(path):
        # A first row that is neither fails here, before a model loads.
        next(read_solution_rows(path), None)
        return None
    return open_rows(path, step, _check)


def _holds_solutions(path: Path) -> bool:
    rows = itertools.islice(read_rows("train", str(path), ""), 1)
    return any(row.keys() & _OF_SOLUTIONS for _, row in rows)


def _check(place: str, row: Row) -> None:
    absent = [name for name in ("prompt", "completion") if name not in row]
    if absent:
        pairs = "; preferences are for 'rewardsteer evaluate preference --input'" if (
            row.keys() >= _OF_PAIRS
        ) else ""
        raise DataError(
            f"{place}: expected the fields 'prompt' and 'completion', found {fields_of(row)}"
            f"{pairs}."
        )
    if row.get("finish_reason") == "error":
        raise DataError(
            f"{place}: this row holds no answer, for its generation failed ({row.get('error')}); "
            "try again with 'rewardsteer generate --resume', or take the line out."
        )
    read_pair(row["prompt"], row["completion"], place)
    parse_tools(row.get("tools"), place)


def read_answered(path: Path, problems: Sequence[str]) -> Iterator[Solution]:
    """Solutions with the problems' reference answers, and with the labels that they came with.

    Raises:
        ConfigError: a problem option that is not NAME=FILE.
        DataError: malformed rows, or questions that the problems lack.
    """
    return _answered((solution for _, _, solution in read_solution_rows(path)), problems)


def _answered(solutions: Iterable[Solution], problems: Sequence[str]) -> Iterator[Solution]:
    known = []
    for item in problems:
        name, equals, file = item.partition("=")
        if not equals:
            raise ConfigError(f"Expected problems as NAME=FILE (--problems), got {item!r}.")
        known += load_problems(name, file)
    return attach_problems(solutions, known)


@contextmanager
def solution_rows(
    path: Path, problems: Sequence[str], output: Path, step: int
) -> Iterator[dict[Path, Rows]]:
    """Rows by output file. They stand in files beside the outputs until this is left.

    Args:
        path: a file or folder of solutions.
        problems: NAME=FILE items.
        output: a file for all of them (its rows keep all that they had), or a folder for a file
            each benchmark.
        step: rows a shard.

    Raises:
        DataError: malformed rows, one solution twice, or questions that the problems lack.
        OutputError: they cannot be written.
    """
    places: dict[Path, Path] = {}
    try:
        try:
            _write(path, problems, output, places)
        except OSError as error:
            if isinstance(error, RewardsteerError):
                raise
            raise OutputError(f"The rows of {path} cannot be written: {error}.") from error
        yield {place: JsonlRows(source, step) for place, source in places.items()}
    finally:
        for source in places.values():
            source.unlink(missing_ok=True)


def _write(
    path: Path, problems: Sequence[str], output: Path, places: dict[Path, Path]
) -> None:
    rows, solutions = itertools.tee(read_solution_rows(path))
    labelled = map(grade, _answered((solution for _, _, solution in solutions), problems))
    streams: dict[Path, IO[str]] = {}
    with ExitStack() as stack:
        for (_, given, _), solution in zip(rows, labelled, strict=True):
            place = output if output.suffix else _place(output, solution)
            if place not in places:
                places[place] = place.with_name(f"{place.name}.input")
                place.parent.mkdir(parents=True, exist_ok=True)
                streams[place] = stack.enter_context(places[place].open("w", encoding="utf-8"))
            row = solution.model_dump(mode="json", exclude_defaults=True)
            # None says that there is no answer; an absent field would be read from the text.
            row["predicted_answer"] = solution.predicted_answer
            kept = given | row if output.suffix else row
            streams[place].write(json.dumps(kept, ensure_ascii=False) + "\n")


def _place(output: Path, solution: Solution) -> Path:
    part = GREEDY if solution.sample == GREEDY else "all"
    # Names as on the hub (openai/gsm8k) would make folders.
    name = solution.benchmark.replace("/", "_") or "solutions"
    return output / part / f"{name}.jsonl"
