"""RLHFlow's data for process reward models: conversations whose user turns are steps and whose
assistant turns are + or -."""

from collections.abc import Iterator

from rewardsteer.data.sources.comparisons import read_comparisons
from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.labelled import SEPARATOR, check_separator, solution
from rewardsteer.data.sources.math_shepherd import FIRST, divided
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison

_HUB = "RLHFlow/Mistral-PRM-Data"
_LABELS = {"+": 1.0, "-": 0.0}


def load(
    split: str, *, path: str | None = None, separator: str = SEPARATOR, first: str = FIRST,
    reading: Reading | None = None,
) -> Iterator[Comparison]:
    """One row for each conversation in ``conversations`` (or ``messages``).

    Args:
        path: local file or folder; None reads the hub.
        separator: written between two steps.
        first: text that begins the first step, after the question in the first user turn.

    Raises:
        ConfigError: a separator that is no white space.
        DataError: turns of another form; names the row.
    """
    check_separator(separator)

    def parse(row: Row, place: str) -> Comparison:
        name = "messages" if "messages" in row else "conversations"
        require(row, [name], place)
        turns = row[name]
        roles = [turn["role"] for turn in turns]
        if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
            raise DataError(
                f"{place}: expected turns of user (a step) and assistant (+ or -) by turns, got "
                f"{', '.join(roles) or 'none'}."
            )
        texts = [turn["content"] for turn in turns]
        answers = [text.strip() for text in texts[1::2]]
        wrong = [answer for answer in answers if answer not in _LABELS]
        if wrong:
            raise DataError(f"{place}: expected the answers + or -, got {wrong[0][:40]!r}.")
        question, step = divided(texts[0], first, place)
        return solution(
            question, [step, *texts[2::2]], [_LABELS[answer] for answer in answers], place,
            separator=separator,
        )

    yield from read_comparisons("rlhflow_steps", split, path, reading, parse, hub=_HUB)
