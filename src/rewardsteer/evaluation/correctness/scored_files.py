"""Scored solutions as ``rewardsteer score`` writes them, by benchmark and question."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.answers import canonical_answer, extract_answer
from rewardsteer.data.solutions import GREEDY, question_key
from rewardsteer.errors import DataError
from rewardsteer.evaluation.correctness.scored import Benchmark, Question
from rewardsteer.faults import checked
from rewardsteer.outputs import read_jsonl
from rewardsteer.records import Solution

_NAMES = {
    "benchmark", "question_id", "sample", "model", "predicted_answer", "expected_answer",
}


def load_scored(path: Path) -> tuple[dict[str, Benchmark], dict[str, Benchmark]]:
    """Sampled and greedy solutions by benchmark.

    Args:
        path: a folder written by ``rewardsteer score`` (``all/`` and ``greedy/``), or one file.

    Raises:
        DataError: nothing there, malformed rows, one solution twice, or no label at all.
    """
    if not path.exists():
        raise DataError(f"Expected scored solutions at {path}, there is no such file or folder.")
    if path.is_file():
        found: tuple[dict[str, Benchmark], dict[str, Benchmark]] = _benchmarks([path]), {}
    else:
        found = _folder(path)
    solutions = [one for part in found for one in part.values()]
    if not any(one.questions for one in solutions):
        names = ", ".join(sorted({repr(one.name) for one in solutions}))
        raise DataError(
            f"None of the {sum(one.unlabelled for one in solutions)} solutions of {names or path} "
            "has a label; give 'is_correct' in the input of 'rewardsteer score'."
        )
    return found


def _folder(path: Path) -> tuple[dict[str, Benchmark], dict[str, Benchmark]]:
    sampled = sorted((path / "all").glob("*.jsonl"))
    greedy = sorted((path / GREEDY).glob("*.jsonl"))
    if not sampled and not greedy:
        raise DataError(
            f"Expected all/*.jsonl or {GREEDY}/*.jsonl in {path}; write them with "
            "'rewardsteer score'."
        )
    return _benchmarks(sampled), _benchmarks(greedy)


def _benchmarks(files: Sequence[Path]) -> dict[str, Benchmark]:
    rows: dict[str, dict[str, list[Solution]]] = {}
    seen: dict[tuple[str, str, str, str], tuple[str, Solution]] = {}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for file in files:
        for number, row in read_jsonl(file):
            place = f"{file}, line {number}"
            solution = _solution(row, file, place)
            key = (solution.benchmark, solution.question_id, solution.sample, solution.model)
            count = counts[solution.benchmark]
            if key not in seen:
                seen[key] = place, solution
                count["extracted"] += solution.answer_from_text
                by_question = rows.setdefault(solution.benchmark, {})
                by_question.setdefault(solution.question_id, []).append(solution)
            elif seen[key][1] == solution:
                count["repeated"] += 1
            else:
                raise DataError(
                    f"{place}: another solution of this question has the same sample and model "
                    f"({seen[key][0]}); give them different 'sample' values."
                )
    return {
        name: _benchmark(name, questions, counts[name]) for name, questions in sorted(rows.items())
    }


def _solution(row: dict[str, object], file: Path, place: str) -> Solution:
    """A row as a solution; unknown fields are ignored."""
    known = {name: value for name, value in row.items() if name in Solution.model_fields}
    # Other programs may write ids and answers as numbers.
    for name in _NAMES & known.keys():
        if isinstance(known[name], int | float) and not isinstance(known[name], bool):
            known[name] = str(known[name])
    known.setdefault("benchmark", file.stem)
    known.setdefault("question_id", "")
    try:
        solution = checked(Solution, known)
    except ValueError as error:
        raise DataError(f"{place}: no scored solution ({error}).") from error
    found: dict[str, Any] = {"token_count": _token_count(solution, place)}
    if [] in (solution.token_rewards, solution.token_similarities):
        # A completion without tokens has no prefix to score.
        found |= {"reward": None, "token_rewards": None, "token_similarities": None}
    if not solution.question_id:
        found["question_id"] = question_key(solution.prompt)
    if solution.predicted_answer is None and "predicted_answer" not in row:
        found["predicted_answer"] = canonical_answer(extract_answer(solution.completion))
        found["answer_from_text"] = True
    return solution.model_copy(update=found)


def _token_count(solution: Solution, place: str) -> int:
    """The solution's tokens, after checks of its values; raises `DataError`."""
    count = solution.token_count
    for name in ("reward", "token_rewards", "token_similarities"):
        values = getattr(solution, name)
        if values is None:
            continue
        if not np.isfinite(values).all():
            raise DataError(
                f"{place}: expected finite numbers as {name}, got NaN or infinity; leave the field "
                "out of rows that have no score."
            )
        if name == "reward":
            continue
        count = count or len(values)
        if len(values) != count:
            raise DataError(
                f"{place}: {name} holds {len(values)} values for {count} tokens; expected one per "
                "token."
            )
    return count


def _benchmark(
    name: str, by_question: dict[str, list[Solution]], count: Counter[str]
) -> Benchmark:
    questions, unlabelled, skipped = [], 0, 0
    for key, solutions in sorted(by_question.items()):
        labelled = [one for one in solutions if one.is_correct is not None]
        unlabelled += len(solutions) - len(labelled)
        skipped += sum(one.reward is None for one in labelled)
        if labelled:
            labelled.sort(key=lambda one: (one.model, one.sample))
            questions.append(Question(key, labelled))
    texts = {question_key(question.solutions[0].prompt) for question in questions}
    return Benchmark(
        name, questions, unlabelled, skipped, extracted=count["extracted"],
        repeated=count["repeated"], same_text=len(questions) - len(texts),
    )
