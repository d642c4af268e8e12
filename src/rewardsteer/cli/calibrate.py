"""``rewardsteer calibrate``: similarities to a goal state as probabilities, for goal_filter."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.starting import check_reward_model, check_writable, counted, say

Scores = Annotated[
    list[Path],
    typer.Option(
        help="Solutions with is_correct and token_similarities (from 'rewardsteer score --goal … "
        "--tokens'), JSONL; repeatable."
    ),
]
Output = Annotated[Path, typer.Option(help="Calibration, JSON.")]
RewardModel = Annotated[
    Path | None,
    typer.Option(help="The reward model that scored; goal_filter then refuses others."),
]
Ranges = Annotated[int, typer.Option(min=1, help="Ranges of positions, each with its own map.")]


def calibrate_command(
    scores: Scores, output: Output, reward_model: RewardModel = None, ranges: Ranges = 10,
) -> None:
    """Fit P(correct | similarity, position) on labelled solutions, for goal_filter's rule
    probability."""
    from rewardsteer.errors import DataError
    from rewardsteer.models.checkpoint import fingerprint, read_card
    from rewardsteer.outputs import read_jsonl

    absent = [str(place) for place in scores if not place.is_file()]
    if absent:
        raise DataError(f"Expected scored solutions, there is no file {', '.join(absent)}.")
    check_reward_model(reward_model)
    check_writable(output)
    say(f"Reading {', '.join(map(str, scores))} …")

    from rewardsteer.goals.calibration import fit_calibration, save_calibration

    similarities, correct = [], []
    for place in scores:
        for _, row in read_jsonl(place):
            if row.get("is_correct") is not None and row.get("token_similarities"):
                similarities.append(row["token_similarities"])
                correct.append(bool(row["is_correct"]))
    if not similarities:
        raise DataError(
            f"{', '.join(map(str, scores))}: no row has both is_correct and token_similarities; "
            "score labelled solutions with 'rewardsteer score --goal … --tokens'."
        )
    made = ""
    if reward_model is not None:
        read_card(reward_model)
        made = fingerprint(reward_model)
    save_calibration(
        fit_calibration(similarities, correct, ranges=ranges, model_fingerprint=made), output
    )
    say(f"{counted(len(correct), 'solution')}, {sum(correct)} correct; written to {output}")
