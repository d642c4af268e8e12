"""PRM800K (arXiv 2305.20050): human ratings of the steps of solutions to MATH problems.

Annotators rated several completions of each step and continued from one of them, or wrote one
themselves. The chosen path is one row, with a rating for every step. Each other completion is a row
of its own: the path up to it, then the completion, which alone is labelled. So each rating counts
once.
"""

from collections.abc import Iterator
from typing import Any

from rewardsteer.data.sources.files import Row, require, well_formed
from rewardsteer.data.sources.labelled import SEPARATOR, check_separator, solution
from rewardsteer.data.sources.options import check_choice
from rewardsteer.data.sources.reading import Reading, check_place, read_rows
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison

_NEUTRAL: dict[str, float | None] = {"correct": 1.0, "incorrect": 0.0, "unlabelled": None}


def load(
    split: str, *, path: str | None = None, separator: str = SEPARATOR, neutral: str = "correct",
    alternatives: bool = True, screening: bool = False, reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Rows of the published files.

    Args:
        path: local file or folder.
        separator: written between two steps.
        neutral: meaning of the rating 0: ``correct`` (as in OpenAI's solution score and Qwen's
            models), ``incorrect`` (as in TRL's script) or ``unlabelled``.
        alternatives: also yield rows for the completions that were not chosen.
        screening: keep rows that tested the annotators.

    Raises:
        ConfigError: no path, or an unknown option.
        DataError: rows of another form; names the row.
    """
    reading = reading or Reading()
    check_separator(separator)
    check_choice("neutral", neutral, _NEUTRAL)
    check_place("prm800k", path, reading)
    ratings: dict[Any, float | None] = {1: 1.0, 0: _NEUTRAL[neutral], -1: 0.0, None: None}
    for index, (place, row) in enumerate(read_rows(split, path, "", reading=reading)):
        found: list[tuple[list[str], list[float | None]]] = []
        with reading.row(), well_formed(place):
            require(row, ["question", "label"], place)
            if not screening and _tests_annotators(row):
                reading.skip("that tested annotators")
                continue
            found = [
                one for one in _ways(row["label"]["steps"], ratings, place, alternatives)
                if any(label is not None for label in one[1])
            ]
            if not found:
                reading.skip("without a rating")
        for number, (steps, labels) in enumerate(found):
            with reading.row():
                yield solution(
                    row["question"]["problem"], steps, labels, place, separator=separator
                ).model_copy(update={
                    "id": f"prm800k-{split}-{index}-{number}", "source": "prm800k", "place": place,
                })


def _tests_annotators(row: Row) -> bool:
    names = ("is_quality_control_question", "is_initial_screening_question")
    return any(bool(row.get(name)) for name in names)


def _ways(
    steps: list[Any], ratings: dict[Any, float | None], place: str, alternatives: bool
) -> Iterator[tuple[list[str], list[float | None]]]:
    """Steps and labels of each row of an annotation; the chosen path comes last."""
    texts: list[str] = []
    labels: list[float | None] = []
    for step in steps:
        completions = step.get("completions") or []
        taken, human = step.get("chosen_completion"), step.get("human_completion")
        for number, one in enumerate(completions):
            if alternatives and number != taken:
                label = _rating(one, ratings, place)
                yield [*texts, one["text"]], [*(None for _ in texts), label]
        if taken is not None:
            texts.append(completions[taken]["text"])
            labels.append(_rating(completions[taken], ratings, place))
        elif human is not None:
            # The annotator wrote this step and did not rate it: it counts as correct.
            texts.append(human["text"])
            labels.append(1.0)
        else:
            break
    if texts:
        yield texts, labels


def _rating(completion: Row, ratings: dict[Any, float | None], place: str) -> float | None:
    rating = completion.get("rating")
    if rating not in ratings:
        raise DataError(f"{place}: expected the ratings -1, 0, 1 or null, got {rating!r}.")
    return ratings[rating]
