r"""MATH: ``{problem}`` with an ``answer``, or a ``solution`` that holds ``\boxed{}``."""

from rewardsteer.answers import last_boxed
from rewardsteer.data.sources.files import Row, require
from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks.base import Format, answer_text, text


def _math(row: Row, place: str) -> tuple[str, str]:
    require(row, ["problem"], place)
    question = text(row["problem"], "problem", place)
    if row.get("answer") not in (None, ""):
        return question, answer_text(row["answer"], place)
    require(row, ["solution"], place)
    boxed = last_boxed(text(row["solution"], "solution", place))
    if boxed is None:
        raise DataError(f"{place}: expected an answer, or a solution with \\boxed{{…}}.")
    return question, answer_text(boxed, place)


MATH = Format(_math)
