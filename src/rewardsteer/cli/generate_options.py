"""Options of ``rewardsteer generate``, by heading."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rewardsteer.cli.completion import complete_method
from rewardsteer.decoding.methods import METHODS

MAIN, MODELS, GUIDANCE = "Prompts and answers", "Models", "Guidance"
SAMPLING, BEAM, RUNNING = "Sampling", "Steps of goal_beam", "Running"

Model = Annotated[
    str | None,
    typer.Option(
        help="Policy: a causal LM folder or hub name; for --engine openai the name that the server "
        "knows, default: its only one.",
        rich_help_panel=MODELS,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="JSONL with a 'prompt' (text or messages) and an 'id' per line, or .txt with a "
        "prompt per line; '-' reads JSONL from standard input.",
        rich_help_panel=MAIN,
    ),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option(
        help="A prompt, instead of --prompts; repeatable.",
        rich_help_panel=MAIN,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        help="JSONL of generations with their costs; '-': standard output.",
        rich_help_panel=MAIN,
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(METHODS.names())}, or your own as package.module:Class. Default: what "
        "the reward model was trained for; none without one.",
        autocompletion=complete_method,
        rich_help_panel=GUIDANCE,
    ),
]
RewardModels = Annotated[
    list[Path] | None,
    typer.Option(
        help="Reward model folder (from 'rewardsteer train'); several with --weight for each, "
        "for methods that add rewards to next-token logits.",
        rich_help_panel=MODELS,
    ),
]
GoalFile = Annotated[
    Path | None,
    typer.Option(
        help="Goal states, for the methods that use one (from 'rewardsteer goal-state'): a "
        "file, or a folder that holds one; default: the reward model's folder.",
        rich_help_panel=GUIDANCE,
    ),
]
GoalName = Annotated[
    str | None,
    typer.Option(
        help="Which goal; needed where there are several.",
        rich_help_panel=GUIDANCE,
    ),
]
Weights = Annotated[
    list[float] | None,
    typer.Option(
        help="Weight of rewards or similarity; 0: the policy alone. Once for each reward "
        "model; negative ones push away.",
        show_default="1",
        rich_help_panel=GUIDANCE,
    ),
]
WeightSchedule = Annotated[
    str,
    typer.Option(
        help="constant; or linear, cosine: from --weight to --weight-end.",
        rich_help_panel=GUIDANCE,
    ),
]
WeightEnd = Annotated[
    float | None,
    typer.Option(
        help="Weight at the last token of --max-new-tokens.",
        rich_help_panel=GUIDANCE,
    ),
]
TargetKl = Annotated[
    float | None,
    typer.Option(
        help="Find the weight with this KL from the policy, in nats, at every token.",
        rich_help_panel=GUIDANCE,
    ),
]
MaxKl = Annotated[
    float | None,
    typer.Option(
        help="Lower the weight where its KL from the policy is larger.",
        rich_help_panel=GUIDANCE,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        help="Draw from the likeliest tokens whose probabilities come to this. Default: the "
        "policy's own, else 1 (all).", rich_help_panel=SAMPLING,
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        help="Draw only tokens that are at least this share as probable as the likeliest. Default: "
        "the policy's own, else 0.", rich_help_panel=SAMPLING,
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(
        help="Divides positive and multiplies negative scores of tokens that prompt or response "
        "hold. Default: the policy's own, else 1.", rich_help_panel=SAMPLING,
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="A string that ends a response; repeatable.", rich_help_panel=SAMPLING),
]
TopK = Annotated[
    int | None,
    typer.Option(
        help="Tokens to draw from, 0 for all; or the candidates that a method asks a scalar "
        "reward model about. Default: the policy's own setting, else all; 10 candidates.",
        rich_help_panel=SAMPLING,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Divides the scores before drawing; 0: greedy. Default: the policy's own, else 1.",
        rich_help_panel=SAMPLING,
    ),
]
Greedy = Annotated[
    bool,
    typer.Option(
        "--greedy/--sample",
        help="Take the best token, or draw one.",
        rich_help_panel=SAMPLING,
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        "--n",
        help="Responses drawn by best_of_n, speculative_rejection and (at most) majority_vote, "
        "goal_filter.",
        rich_help_panel=SAMPLING,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of sampling (min_tokens, presence_penalty, …), cards (reward_target, …), "
        "speculative_rejection (reject_share, …) or goal_filter (drop_rule, …) as name=value; "
        "repeatable, see docs/decoding.md.",
        rich_help_panel=GUIDANCE,
    ),
]
Beam = Annotated[int, typer.Option(help="Hypotheses that goal_beam keeps.", rich_help_panel=BEAM)]
Branches = Annotated[
    int,
    typer.Option(
        help="Steps goal_beam draws from each hypothesis.",
        rich_help_panel=BEAM,
    ),
]
StepSeparator = Annotated[
    str,
    typer.Option(
        help="Text that ends a step of goal_beam; '': none.",
        show_default="newline",
        rich_help_panel=BEAM,
    ),
]
StepTokens = Annotated[int, typer.Option(help="Longest step of goal_beam.", rich_help_panel=BEAM)]
MaxSteps = Annotated[int, typer.Option(help="Most steps of goal_beam.", rich_help_panel=BEAM)]
MaxNewTokens = Annotated[
    int,
    typer.Option(
        help="Longest response, end-of-text included.",
        rich_help_panel=SAMPLING,
    ),
]
BatchSize = Annotated[int, typer.Option(help="Rows decoded together.", rich_help_panel=RUNNING)]
Seed = Annotated[
    int,
    typer.Option(
        help="Every prompt draws from its own generator.",
        rich_help_panel=SAMPLING,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        help="Answer the first so many prompts.",
        rich_help_panel=MAIN,
    ),
]
ShareBackbone = Annotated[
    bool,
    typer.Option(
        help="Put a reward model kept as an adapter on the policy's own weights.",
        rich_help_panel=MODELS,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        help="Go on with an output begun before.",
        rich_help_panel=MAIN,
    ),
]
Overwrite = Annotated[bool, typer.Option(help="Replace the output.", rich_help_panel=MAIN)]


def those_given(**options: Any) -> dict[str, Any]:
    """The options that were given: what is open is decided by the policy."""
    return {name: value for name, value in options.items() if value is not None}
