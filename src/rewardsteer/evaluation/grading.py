"""Labels of solutions: from reference answers where a file has none, compared where it has."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from rewardsteer.answers import extract_answer, same_answer
from rewardsteer.data.solutions import question_key
from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks.base import Problem
from rewardsteer.records import Solution


def attach_problems(
    solutions: Iterable[Solution], problems: Iterable[Problem]
) -> Iterator[Solution]:
    """Solutions with the reference answers of their questions, found by the questions' text.

    Only benchmarks that problems were given for are looked at.

    Raises:
        DataError: at the end, where questions were not among their benchmark's problems.
    """
    answers: dict[str, dict[str, str]] = defaultdict(dict)
    for problem in problems:
        answers[problem.benchmark][question_key(problem.question)] = problem.answer
    missing, first = 0, None
    for solution in solutions:
        known = answers.get(solution.benchmark)
        if known is None:
            yield solution
            continue
        answer = known.get(question_key(solution.prompt))
        if answer is None:
            missing, first = missing + 1, first or solution
        yield solution.model_copy(update={"expected_answer": answer})
    if first is not None:
        raise DataError(
            f"{missing} solutions of {first.benchmark!r} answer questions that its problems "
            f"lack (the first: {str(first.prompt)[:60]!r}…); give the problems they were made for."
        )


def grade(solution: Solution) -> Solution:
    """The solution with a label, from its answers, where it has none and can have one."""
    if solution.is_correct is not None or solution.expected_answer is None:
        return solution
    correct = same_answer(solution.predicted_answer, solution.expected_answer)
    return solution.model_copy(update={"is_correct": correct})


def agreement(solutions: Iterable[Solution]) -> dict[str, dict[str, Any]]:
    """How far labels that came with solutions agree with ours, by benchmark.

    Returns:
        ``solutions`` that have a label and a reference answer, and the shares of them whose label
        is that of ``predicted`` (their predicted answer) and ``extracted`` (the answer found in
        their text), and up to ten ``examples`` of the latter that differ.
    """
    rows: dict[str, list[Solution]] = defaultdict(list)
    for solution in solutions:
        if solution.is_correct is not None and solution.expected_answer is not None:
            rows[solution.benchmark].append(solution)
    figures: dict[str, dict[str, Any]] = {}
    for name, found in sorted(rows.items()):
        predicted, extracted = 0, 0
        examples: list[dict[str, Any]] = []
        for one in found:
            assert one.expected_answer is not None
            predicted += same_answer(one.predicted_answer, one.expected_answer) == one.is_correct
            ours = extract_answer(one.completion)
            same = same_answer(ours, one.expected_answer) == one.is_correct
            extracted += same
            if not same and len(examples) < 10:
                examples.append({
                    "question_id": one.question_id, "sample": one.sample, "label": one.is_correct,
                    "expected": one.expected_answer, "predicted": one.predicted_answer,
                    "extracted": ours,
                })
        figures[name] = {
            "solutions": len(found), "predicted": predicted / len(found),
            "extracted": extracted / len(found), "examples": examples,
        }
    return figures
