"""Worked solutions of maths questions, from files of several layouts.

- rewardsteer: one solution per line, ``prompt``, ``completion``, and where known ``benchmark``,
  ``question_id``, ``sample``, ``model``, ``predicted_answer``, ``expected_answer``, ``is_correct``.
- NeMo-Skills and OpenMath: ``question`` or ``problem``, ``generation`` or ``generated_solution``,
  ``predicted_answer``, ``expected_answer``, ``is_correct``; folders ``BENCHMARK/*-greedy.jsonl``
  and ``BENCHMARK/output-rs*.jsonl``.
- A question with a list ``completions`` of ``{model, prompt, text, pred, is_correct}``.
- A question with named models, each ``{solution, is_correct}``.

Questions are identified by ``question_id`` or a key made from their text, never by position.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewardsteer.answers import canonical_answer, extract_answer
from rewardsteer.data.sources.files import Row, fields_of
from rewardsteer.data.sources.reading import read_rows
from rewardsteer.data.sources.turns import read_pair, read_prompt
from rewardsteer.errors import DataError
from rewardsteer.records import Prompt, Solution

GREEDY = "greedy"
QUESTIONS = ("question", "problem", "prompt")
_TEXTS = ("generated_solution", "generation", "completion", "solution", "text")
_EXPECTED = ("expected_answer", "gold", "answer")
# Sample names that only number the draws of a model; other names describe the prompt style.
_DRAW = re.compile(r"(?:rs)?\d*|greedy")
_SUFFIXES = (".jsonl", ".jsonl.gz")


def read_solutions(path: Path) -> Iterator[tuple[str, Solution]]:
    """Yield ``(place, solution)`` from a file, a folder of files or a folder of benchmarks.

    Raises:
        DataError: no data, a row without question or solution, or a duplicate solution.
    """
    for place, _, solution in read_solution_rows(path):
        yield place, solution


def read_solution_rows(path: Path) -> Iterator[tuple[str, Row, Solution]]:
    """Yield ``(place, row, solution)``, as `read_solutions` with the row of each solution. The row
    is empty where it holds several solutions."""
    seen: dict[tuple[str, str, str, str], str] = {}
    for file, benchmark in _files(path):
        for place, row in read_rows("train", str(file), ""):
            try:
                found = list(_from_row(row, place, benchmark, _sample(file)))
            except DataError:
                raise
            except ValueError as error:
                raise DataError(f"{place}: {error}.") from error
            if not found:
                raise DataError(
                    f"{place}: expected 'prompt' and 'completion', or a question and a solution "
                    f"(layouts: docs/scoring.md); found the fields {fields_of(row)}."
                )
            for solution in found:
                key = (solution.benchmark, solution.question_id, solution.sample, solution.model)
                if key in seen:
                    raise DataError(
                        f"{place}: the solution {solution.sample or 'without a sample name'} of "
                        f"this question appears already in {seen[key]}; give the rows different "
                        "'sample' values or remove one."
                    )
                seen[key] = place
                yield place, row if len(found) == 1 else {}, solution


def question_key(question: Prompt) -> str:
    """A key of a question that does not depend on the file or the style of quotes and spaces."""
    if not isinstance(question, str):
        question = "\n".join(f"{turn.role}: {turn.content}" for turn in question)
    text = unicodedata.normalize("NFKC", question).replace("’", "'").replace("‘", "'")
    text = " ".join(text.replace("“", '"').replace("”", '"').split())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def graded_solutions(row: Row, place: str) -> Iterator[Solution]:
    """The labelled solutions of a row, in any of the layouts; messages name its ``place``."""
    for solution in _from_row(row, place, "", ""):
        if solution.is_correct is not None:
            yield solution


def source_of(solution: Solution) -> str:
    """The source of a solution: its model, and the prompt style where the sample's name gives it.
    """
    prompted = "" if _DRAW.fullmatch(solution.sample) else solution.sample
    return "/".join(filter(None, (solution.model, prompted)))


def _files(path: Path) -> list[tuple[Path, str]]:
    """Files to read with their benchmark's name, in a stable order."""
    if not path.exists():
        raise DataError(f"Expected solutions at {path}, there is no such file or folder.")
    if path.is_file():
        return [(path, path.name.split(".")[0])]
    files = [(file, path.name) for file in sorted(path.iterdir()) if file.name.endswith(_SUFFIXES)]
    for folder in sorted(folder for folder in path.iterdir() if folder.is_dir()):
        files += [
            (file, folder.name) for file in sorted(folder.iterdir())
            if file.name.endswith(_SUFFIXES)
        ]
    if not files:
        raise DataError(f"Expected .jsonl files or folders of them in {path}, found none.")
    return files


def _sample(file: Path) -> str:
    """``output-rs3.jsonl`` → rs3, ``output-greedy.jsonl`` → greedy, else the file's stem."""
    stem = file.name.split(".")[0]
    return stem.rpartition("-")[2] if "-" in stem else stem


def _from_row(row: Row, place: str, benchmark: str, sample: str) -> Iterator[Solution]:
    question = next((row[name] for name in QUESTIONS if row.get(name)), None)
    if not isinstance(question, str | list):
        return
    prompt = read_prompt(question, place)
    given = row.get("question_id")
    shared: dict[str, Any] = {
        "prompt": prompt,
        "question_id": question_key(prompt) if given is None else str(given),
        "benchmark": str(row.get("benchmark") or row.get("dataset") or benchmark).lower(),
        "expected_answer": _expected(row),
    }
    text = next((row[name] for name in _TEXTS if name in row), None)
    several = row.get("completions")
    if isinstance(text, list) and text and all(isinstance(turn, dict) for turn in text):
        shared["prompt"], text = read_pair(prompt, text, place, "the solution")
    if isinstance(text, str):
        yield _solution(row, text, shared, str(row.get("sample") or sample))
    elif isinstance(text, list) and isinstance(row.get("is_correct"), list):
        yield from _listed(text, row["is_correct"], shared)
    elif isinstance(several, list):
        for number, one in enumerate(several):
            if isinstance(one, dict):
                yield from _nested(one, shared, str(one.get("prompt") or number))
    else:
        for name, one in row.items():
            if isinstance(one, dict):
                yield from _nested({"model": name, **one}, shared, "")


def _listed(texts: list[Any], grades: list[Any], shared: dict[str, Any]) -> Iterator[Solution]:
    if len(texts) != len(grades):
        raise ValueError(
            f"{len(texts)} solutions have {len(grades)} values of is_correct; expected one each"
        )
    for number, (one, grade) in enumerate(zip(texts, grades, strict=True)):
        if isinstance(one, str) and grade is not None:
            yield _solution({"is_correct": grade}, one, shared, str(number))


def _nested(row: Row, shared: dict[str, Any], sample: str) -> Iterator[Solution]:
    text = next((row[name] for name in _TEXTS if name in row), None)
    if isinstance(text, str):
        yield _solution(row, text, shared, sample)


def _solution(row: Row, text: str, shared: dict[str, Any], sample: str) -> Solution:
    grade = row.get("is_correct")
    answered = next((row[name] for name in ("predicted_answer", "pred") if name in row), _ABSENT)
    if isinstance(answered, list | dict):
        raise ValueError(
            f"'predicted_answer' or 'pred' holds {len(answered)} values for one solution; write "
            "each solution as a row of its own (docs/scoring.md)"
        )
    absent = answered is _ABSENT
    answer = extract_answer(text) if absent else answered
    return Solution(
        completion=text, sample=sample, model=str(row.get("model") or ""),
        # An empty answer becomes None, so that unanswered solutions do not vote together.
        predicted_answer=canonical_answer(
            None if answer is None else str(answer), shared["expected_answer"]
        ) or None,
        answer_from_text=absent or row.get("answer_from_text") is True,
        is_correct=bool(grade) if isinstance(grade, bool | int) else None, **shared,
    )


_ABSENT = object()


def _expected(row: Row) -> str | None:
    for name in _EXPECTED:
        if isinstance(row.get(name), str | int | float):
            return str(row[name])
    reference = row.get("ground_truth")
    return extract_answer(reference) if isinstance(reference, str) else None
