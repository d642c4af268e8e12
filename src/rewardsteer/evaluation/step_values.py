"""Values of a completion's steps, in addition to its reward."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rewardsteer.data.render import Tools
from rewardsteer.data.sources.messages import parse_tools
from rewardsteer.data.sources.turns import read_pair
from rewardsteer.errors import DataError
from rewardsteer.models.aggregation import SEPARATOR, split_steps
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Prompt

Row = dict[str, Any]


def pairs_of(rows: Sequence[Row]) -> tuple[list[Prompt], list[str]]:
    """Prompts and completions of rows; raises `DataError` as `read_pair`."""
    pairs = [
        read_pair(row["prompt"], row["completion"], f"row {number}")
        for number, row in enumerate(rows, start=1)
    ]
    return [prompt for prompt, _ in pairs], [text for _, text in pairs]


def tools_of(rows: Sequence[Row]) -> list[Tools | None]:
    """Functions that the rows' chat template lists; raises `DataError` as `parse_tools`."""
    return [
        parse_tools(row.get("tools"), f"row {number}") for number, row in enumerate(rows, start=1)
    ]


def with_step_values(scorer: TextScorer, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows with ``step_rewards``: one value per step.

    Steps are the row's own ``steps`` (a list of texts), else the parts into which the reward model
    splits the completion, else those between blank lines. A row that was skipped, or whose steps
    cannot be scored (always with ``tools``), gets ``step_rewards: null``, in the second case with
    the reason under ``skipped``.
    """
    held = [
        row | {"skipped": "steps are read without tools, and the row has some"}
        if row.get("tools") and "skipped" not in row else row for row in rows
    ]
    asked = [row for row in held if "skipped" not in row]
    prompts, completions = pairs_of(asked)
    steps = [
        row.get("steps") or _divided(scorer, text)
        for row, text in zip(asked, completions, strict=True)
    ]
    values = iter(_values(scorer, prompts, steps))
    for row in held:
        yield row | ({"step_rewards": None} if "skipped" in row else next(values))


def _divided(scorer: TextScorer, completion: str) -> list[str]:
    own: Callable[[str], list[str]] | None = getattr(scorer, "split_steps", None)
    if own is not None:
        return own(completion)
    return split_steps(completion, getattr(scorer, "split", SEPARATOR))


def _values(
    scorer: TextScorer, prompts: Sequence[Any], steps: Sequence[Sequence[str]]
) -> list[Row]:
    try:
        found = scorer.step_scores(prompts, steps)
    except DataError as error:
        if len(prompts) == 1:
            return [{"step_rewards": None, "skipped": str(error)}]
        # Some row cannot be scored: rows are scored one by one, so that only this one is skipped.
        alone = (_values(scorer, [prompt], [own])
                 for prompt, own in zip(prompts, steps, strict=True))
        return [row for rows in alone for row in rows]
    return [{"step_rewards": [float(value) for value in one]} for one in found]
