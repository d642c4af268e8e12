"""Labels of solutions from reference answers, and their agreement with labels in the file."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from rewardsteer.answers import canonical_answer, extract_answer, same_answer
from rewardsteer.data.solutions import question_key
from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks.base import Problem
from rewardsteer.records import Solution


def attach_problems(
    solutions: Iterable[Solution], problems: Iterable[Problem]
) -> Iterator[Solution]:
    """Add reference answers to solutions, matched by the text of the question.

    Solutions of benchmarks without problems stay as they are.

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
        yield solution.model_copy(update={
            "expected_answer": answer,
            "predicted_answer": canonical_answer(solution.predicted_answer, answer),
        })
    if first is not None:
        raise DataError(
            f"{missing} solutions of {first.benchmark!r} answer questions that its problems "
            f"lack (the first: {str(first.prompt)[:60]!r}…); give the problems they were made for."
        )


def grade(solution: Solution) -> Solution:
    """The solution; one without a label gets it from its answer and the reference answer."""
    if solution.is_correct is not None or solution.expected_answer is None:
        return solution
    correct = same_answer(solution.predicted_answer, solution.expected_answer)
    return solution.model_copy(update={"is_correct": correct})


def agreement(solutions: Iterable[Solution]) -> dict[str, dict[str, Any]]:
    """Agreement of the labels in the file with our grading, by benchmark.

    Returns:
        ``solutions``: number with a label and a reference answer; ``predicted`` and ``extracted``:
        shares whose label equals the grade of the predicted answer and of the answer found in the
        text; ``differing``: solutions for which either differs, with the answers.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    differing: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in solutions:
        if one.is_correct is None or one.expected_answer is None:
            continue
        count = counts[one.benchmark]
        count["solutions"] += 1
        ours = extract_answer(one.completion)
        predicted, extracted = (
            same_answer(answer, one.expected_answer) == one.is_correct
            for answer in (one.predicted_answer, ours)
        )
        count["predicted"] += predicted
        count["extracted"] += extracted
        if not predicted or not extracted:
            differing[one.benchmark].append({
                "question_id": one.question_id, "sample": one.sample, "model": one.model,
                "label": one.is_correct, "expected": one.expected_answer,
                "predicted": one.predicted_answer, "extracted": ours,
            })
    return {
        name: {
            "solutions": count["solutions"],
            "predicted": count["predicted"] / count["solutions"],
            "extracted": count["extracted"] / count["solutions"], "differing": differing[name],
        }
        for name, count in sorted(counts.items())
    }
