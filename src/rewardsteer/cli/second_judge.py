"""The second judge of ``rewardsteer evaluate generation``, and the warning where there is none."""

from typing import TYPE_CHECKING, Annotated

import typer

from rewardsteer.cli.starting import say

if TYPE_CHECKING:
    from rewardsteer.evaluation.entries import Entry, Judge

SecondJudge = Annotated[
    str | None,
    typer.Option(help="Another scalar reward model, for methods that --judge itself guides."),
]


def warn_of_own_judge(entries: list["Entry"], judge: "Judge") -> None:
    """Say where the judge guides and nobody else judges."""
    from rewardsteer.evaluation.generation import judged_by_guide

    if judge.second is None and (own := judged_by_guide(entries, judge)):
        say(
            f"warning: --judge itself guides {', '.join(own)}, whose rewards are therefore too "
            "high; --second-judge takes another reward model"
        )
