"""Options of ``rewardsteer evaluate generation``, and their parsing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rewardsteer.cli.starting import say

if TYPE_CHECKING:
    from rewardsteer.evaluation.entries import Entry, Judge

Prompts = Annotated[Path, typer.Option(help="JSONL with a 'prompt' a line.")]
Methods = Annotated[
    str,
    typer.Option(
        help="YAML: label → decoding settings, 'reward_model' for guided methods (or a list, with "
        "'reward_weights'), 'goal' where a method wants one (default: the reward model's own). Or "
        "names with default settings: none,best_of_n=BT,farma=FARMA, a reward model behind each."
    ),
]
JudgeFolder = Annotated[
    Path, typer.Option("--judge", help="Scalar reward model that gives the rewards.")
]
Out = Annotated[Path, typer.Option(help="Output folder.")]
Baseline = Annotated[
    str | None, typer.Option(help="Label that the others are compared with; default: the first.")
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights to try, as 0.5,1,2: each guided method becomes one per weight."),
]
BudgetUnit = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="tokens, seconds or calls: each method answers with the best of as many responses as "
        "--budget-per-prompt pays for.",
    ),
]
BudgetPerPrompt = Annotated[
    float | None, typer.Option(help="Policy-equivalent tokens, seconds or reward model calls.")
]
KlPrompts = Annotated[
    int,
    typer.Option(
        min=0,
        help="Measure each method's KL divergence from the policy on so many prompts; takes as "
        "long as generating them again one by one.",
    ),
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible address (…/v1) whose model judges pairs of responses."),
]
JudgeModel = Annotated[str | None, typer.Option(help="The model's name at --judge-url.")]
JudgeKeyEnv = Annotated[
    str, typer.Option(help="Environment variable that holds the key for --judge-url.")
]
BothOrders = Annotated[
    bool,
    typer.Option(
        "--both-orders", help="Ask the judge at --judge-url about every pair twice, with either "
        "response first; shows how often it contradicts itself.",
    ),
]
CoherenceModel = Annotated[
    str | None,
    typer.Option(
        "--coherence",
        help="Sentence-embedding model (folder or hub name) for the nearness of response and "
        "prompt; needs sentence-transformers.",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(help="Sampling seeds, as 0,1,2: everything is repeated with each, into "
                 "OUT/seed-S; the tables show means with intervals over seeds and prompts."),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Use only this many prompts, the first ones.")
]
Resume = Annotated[bool, typer.Option(help="Continue an interrupted evaluation in OUT.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in OUT.")]


def read_seeds(given: str) -> list[int]:
    """The seeds of ``--seeds``, given as ``0,1,2``."""
    from rewardsteer.errors import ConfigError
    from rewardsteer.evaluation.runs import check_seeds

    try:
        seeds = [int(one) for one in given.split(",")]
    except ValueError:
        raise ConfigError(f"Expected --seeds as 0,1,2, got {given!r}.") from None
    check_seeds(seeds)
    return seeds


SecondJudge = Annotated[
    str | None,
    typer.Option(help="Another scalar reward model, for methods that --judge itself guides."),
]


def warn_of_own_judge(entries: list["Entry"], judge: "Judge") -> None:
    """Warn where a method is guided by the only judge."""
    from rewardsteer.evaluation.generation import judged_by_guide

    if judge.second is None and (own := judged_by_guide(entries, judge)):
        say(
            f"warning: --judge itself guides {', '.join(own)}, whose rewards are therefore too "
            "high; --second-judge takes another reward model"
        )
