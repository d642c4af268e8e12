"""SVAMP: ``{Body, Question, Answer}``."""

from rewardsteer.data.sources.files import Row, require
from rewardsteer.evaluation.benchmarks.base import Format, story


def _svamp(row: Row, place: str) -> tuple[str, str]:
    require(row, ["Body", "Question", "Answer"], place)
    return story(row, place)


SVAMP = Format(_svamp)
