"""Labels from reference answers, and how far labels that came with files agree with them."""

import pytest

from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks.base import Problem
from rewardsteer.evaluation.grading import agreement, attach_problems, grade
from rewardsteer.records import Solution


def solution(completion="The answer is 4.", **fields):
    fields = {"benchmark": "gsm8k", "prompt": "What is 2 + 2?", "predicted_answer": "4"} | fields
    return Solution(completion=completion, **fields)


def test_a_label_is_made_where_there_is_none():
    assert grade(solution(expected_answer="4.0")).is_correct is True
    assert grade(solution(expected_answer="5")).is_correct is False
    assert grade(solution(expected_answer="4", predicted_answer=None)).is_correct is False


def test_labels_that_came_are_kept_and_unknown_answers_give_none():
    assert grade(solution(expected_answer="4", is_correct=False)).is_correct is False
    assert grade(solution()).is_correct is None


def test_problems_are_found_by_text_not_by_place():
    problems = [
        Problem("a", "gsm8k", "What is 3 + 3?", "6"), Problem("b", "gsm8k", "What  is 2 + 2?", "4"),
        Problem("c", "svamp", "What is 2 + 2?", "five"),
    ]
    [one] = attach_problems([solution()], problems)
    assert one.expected_answer == "4"
    other = solution(benchmark="math")
    assert list(attach_problems([other], problems)) == [other]


def test_a_question_without_its_problem_is_refused():
    with pytest.raises(DataError, match=r"1 solutions of 'gsm8k'.*lack"):
        list(attach_problems([solution()], [Problem("a", "gsm8k", "What is 3 + 3?", "6")]))


def test_agreement_counts_each_way_of_grading():
    rows = [
        solution(expected_answer="4", is_correct=True),
        solution("It is 5.", expected_answer="4", is_correct=True),  # the text says otherwise
        solution(expected_answer="4", is_correct=False),  # the label is wrong
        solution(is_correct=True),  # no reference answer: not compared
    ]
    figures = agreement(rows)["gsm8k"]
    assert figures["solutions"] == 3
    assert figures["predicted"] == pytest.approx(2 / 3)
    assert figures["extracted"] == pytest.approx(1 / 3)
    assert [one["extracted"] for one in figures["differing"]] == ["5", "4"]
