"""Options of ``rewardsteer generate``, by heading."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.completion import complete_method
from rewardsteer.cli.decoding_options import GUIDANCE, SAMPLING
from rewardsteer.decoding.methods import METHODS

MAIN, MODELS = "Prompts and answers", "Models"

Model = Annotated[
    str | None,
    typer.Option(
        help="Policy: a causal LM folder or hub name; for --engine openai the model's name on the "
        "server, default: its only one.",
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
    list[str] | None,
    typer.Option(
        help="Reward model: a folder or hub name, or an address for methods that score texts; "
        "repeatable, with a --weight for each, for methods that accept several.",
        rich_help_panel=MODELS,
    ),
]
DraftModel = Annotated[
    str | None,
    typer.Option(
        help="Second, smaller policy with the same tokens, which drafts steps for --method rsd or "
        "gsi.",
        rich_help_panel=MODELS,
    ),
]
GateModel = Annotated[
    Path | None,
    typer.Option(
        help="Reward model with a vocabulary head that decides for --gate kl; --reward-model then "
        "runs only at the tokens that are guided.",
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
        help="Name of the goal; needed if there are several.",
        rich_help_panel=GUIDANCE,
    ),
]
Weights = Annotated[
    list[float] | None,
    typer.Option(
        help="Weight of rewards or similarity; 0: the policy alone; negative: steer away. Once "
        "for each reward model.",
        show_default="1",
        rich_help_panel=GUIDANCE,
    ),
]
Greedy = Annotated[
    bool,
    typer.Option(
        "--greedy/--sample",
        help="Take the most probable token, or draw one.",
        rich_help_panel=SAMPLING,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of sampling (min_tokens, presence_penalty, …), cards (reward_target, …), "
        "speculative_rejection (reject_share, …) or goal_filter (drop_rule, …) as name=value; "
        "repeatable, see docs/generation_reference.md and docs/search.md.",
        rich_help_panel=GUIDANCE,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Answer only the first N prompts.",
        rich_help_panel=MAIN,
    ),
]
ShareBackbone = Annotated[
    bool,
    typer.Option(
        help="Use the policy's weights for a reward model that is an adapter, or a head distilled "
        "on the policy's states.",
        rich_help_panel=MODELS,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        help="Continue an interrupted output.",
        rich_help_panel=MAIN,
    ),
]
Overwrite = Annotated[bool, typer.Option(help="Replace the output.", rich_help_panel=MAIN)]
