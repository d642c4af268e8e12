"""GSM8K: ``{question, answer "… #### 18"}``."""

from rewardsteer.data.sources.files import Row, require
from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks.base import Format, answer_text, text


def _gsm8k(row: Row, place: str) -> tuple[str, str]:
    require(row, ["question", "answer"], place)
    _, mark, answer = text(row["answer"], "answer", place).rpartition("####")
    if not mark:
        raise DataError(f"{place}: expected '####' before the final answer.")
    return text(row["question"], "question", place), answer_text(answer, place)


GSM8K = Format(_gsm8k)
