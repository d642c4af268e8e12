"""Solutions with labelled steps in TRL's format: ``prompt``, ``completions``, ``labels``."""

from collections.abc import Iterator

from rewardsteer.data.render import as_prompt
from rewardsteer.data.sources.comparisons import read_comparisons
from rewardsteer.data.sources.files import Row, kind_of, require
from rewardsteer.data.sources.labelled import SEPARATOR, check_separator, label_of, solution
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import DataError
from rewardsteer.outputs import given
from rewardsteer.records import Comparison


def load(
    split: str, *, path: str | None = None, separator: str = SEPARATOR,
    reading: Reading | None = None,
) -> Iterator[Comparison]:
    """One row for each solution.

    Labels are true, false, null (no label), or numbers from 0 to 1, such as the share of rollouts
    from the step that reach the correct answer.

    Args:
        path: local file or folder; None: the data set that ``hub`` names.
        separator: written between two steps.

    Raises:
        ConfigError: neither path nor hub, or a separator that is no white space.
        DataError: absent fields, or labels that do not match the steps; names the row.
    """
    check_separator(separator)

    def parse(row: Row, place: str) -> Comparison:
        require(row, ["prompt", "completions", "labels"], place)
        steps, labels = row["completions"], row["labels"]
        for name, values in (("completions", steps), ("labels", labels)):
            if not isinstance(values, list):
                raise DataError(f"{place}: expected a list in {name}, got {kind_of(values)}.")
        return solution(
            as_prompt(row["prompt"]), steps, [label_of(one, place) for one in labels], place,
            separator=separator, id=str(given(row, "id")),
        )

    yield from read_comparisons("stepwise", split, path, reading, parse)
