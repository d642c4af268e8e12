"""Options of ``rewardsteer evaluate generation``, and their parsing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rewardsteer.cli.starting import say

if TYPE_CHECKING:
    from rewardsteer.evaluation.entries import Entry, Judge

Prompts = Annotated[Path, typer.Option(help="JSONL with a 'prompt' per line.")]
Methods = Annotated[
    str,
    typer.Option(
        help="YAML that maps labels to decoding settings, with 'reward_model' for guided methods "
        "(or a list, with 'reward_weights') and 'goal' (default: the reward model's own). Or "
        "methods with their reward models and default settings: none,best_of_n=BT,farma=FARMA."
    ),
]
JudgeFolder = Annotated[
    Path, typer.Option("--judge", help="Scalar reward model that scores all responses.")
]
Out = Annotated[Path, typer.Option(help="Output folder.")]
Baseline = Annotated[
    str | None, typer.Option(help="Label that the others are compared with; default: the first.")
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights to try, as 0.5,1,2: one entry per guided method and weight."),
]
BudgetUnit = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Unit: tokens, seconds or calls. Each method answers with the best of as many "
        "responses as --budget-per-prompt allows.",
    ),
]
BudgetPerPrompt = Annotated[
    float | None, typer.Option(help="Policy-equivalent tokens, seconds or reward model calls.")
]
KlPrompts = Annotated[
    int,
    typer.Option(
        min=0,
        help="Measure each method's KL divergence from the policy on the first N prompts; takes "
        "as long as generating them again one by one.",
    ),
]
JudgeUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible address (…/v1) of a judge that compares responses."),
]
JudgeModel = Annotated[str | None, typer.Option(help="The model's name at --judge-url.")]
JudgeKeyEnv = Annotated[
    str, typer.Option(help="Environment variable that holds the key for --judge-url.")
]
BothOrders = Annotated[
    bool,
    typer.Option(
        "--both-orders", help="Let the judge at --judge-url compare every pair twice, with each "
        "response first; shows how often it contradicts itself.",
    ),
]
CoherenceModel = Annotated[
    str | None,
    typer.Option(
        "--coherence",
        help="Sentence-embedding model (folder or hub name) for the similarity of response and "
        "prompt; needs sentence-transformers.",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(help="Sampling seeds, as 0,1,2: repeat everything with each, into "
                 "OUT/seed-S; the tables show means with intervals over seeds and prompts."),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Use only the first N prompts.")
]
ResumeScores = Annotated[bool, typer.Option("--resume", help="Continue from the scores in OUT.")]
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
    typer.Option(help="A second scalar reward model that also scores all responses."),
]


def warn_of_own_judge(entries: list["Entry"], judge: "Judge") -> None:
    """Warn where a method is guided by the only judge."""
    from rewardsteer.evaluation.generation import judged_by_guide

    if judge.second is None and (own := judged_by_guide(entries, judge)):
        say(
            f"warning: --judge itself guides {', '.join(own)}, whose rewards are therefore too "
            "high; --second-judge takes another reward model"
        )
