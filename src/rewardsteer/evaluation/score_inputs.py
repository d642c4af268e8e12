"""Inputs of `rewardsteer score`: rows of prompt and completion, or solutions in many layouts.

Solutions are first written to a temporary file of rows in our layout, so that they are scored like
any other file, shard by shard.
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
        # A malformed first row fails here, before a model is loaded.
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
    """Solutions with the problems' reference answers, and with the labels in their file.

    Raises:
        ConfigError: an item of ``problems`` is not NAME=FILE.
        DataError: malformed rows, or questions that are not among the problems.
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
    """A context that gives the rows by output file, kept in files beside the outputs until it ends.

    Args:
        path: a file or folder of solutions.
        problems: NAME=FILE items.
        output: one file for all solutions (rows keep all their fields), or a folder with one file
            per benchmark.
        step: rows per shard.

    Raises:
        DataError: malformed rows, a repeated solution, or questions not among the problems.
        OutputError: the files cannot be written.
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
            # Written even if None: without the field the answer would be extracted from the text.
            row["predicted_answer"] = solution.predicted_answer
            kept = given | row if output.suffix else row
            streams[place].write(json.dumps(kept, ensure_ascii=False) + "\n")


def _place(output: Path, solution: Solution) -> Path:
    part = GREEDY if solution.sample == GREEDY else "all"
    # Hub names such as openai/gsm8k would make folders.
    name = solution.benchmark.replace("/", "_") or "solutions"
    return output / part / f"{name}.jsonl"
