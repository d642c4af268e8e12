"""``rewardsteer evaluate guide``: compare a guide with a slower teacher, without generation."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.devices import Device
from rewardsteer.cli.starting import (
    check_out,
    check_reward_model,
    loading,
    refuse_address,
    say,
)


def guide_command(
    reward_model: Annotated[str, typer.Option(help="The guide: folder or hub name.")],
    records: Annotated[
        Path, typer.Option(help="Records of a teacher: OUT/records of 'rewardsteer distil'.")
    ],
    weight: Annotated[float, typer.Option(help="Weight of both guides.")] = 1.0,
    test_fraction: Annotated[
        float, typer.Option(help="As in the distillation: its held-out prompts are read.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of the distillation's split.")] = 0,
    all_records: Annotated[
        bool, typer.Option("--all", help="Read all records: those of prompts not trained on.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/guide"),
    batch_size: Annotated[int, typer.Option(min=1, help="Responses scored together.")] = 16,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
) -> None:
    """Share of the teacher's guidance that a guide loses, agreement on the best candidate, rank
    correlation, share of steps changed."""
    from rewardsteer.distillation.records import read_source
    from rewardsteer.errors import ConfigError
    from rewardsteer.outputs import claim_folder, write_json

    if not 0 < test_fraction < 1:
        raise ConfigError(f"--test-fraction must be between 0 and 1, got {test_fraction}.")
    refuse_address(reward_model, "Guides")
    check_reward_model(reward_model)
    source = read_source(records)
    check_out(out, overwrite=overwrite)
    loading(reward_model)

    from rewardsteer.evaluation.guide import evaluate_guide
    from rewardsteer.models.kinds import load_scorer
    from rewardsteer.reports.agreement import GUIDE_COLUMNS, guide_rows
    from rewardsteer.reports.tables import print_table

    scorer = load_scorer(reward_model, device=device)
    figures = evaluate_guide(
        scorer, records, weight=weight, test_fraction=None if all_records else test_fraction,
        seed=seed, batch_size=batch_size,
    )
    claim_folder(out, overwrite=overwrite)
    write_json(out / "metrics.json", {
        "reward_model": reward_model, "fingerprint": scorer.fingerprint,
        "teacher": source.teacher, "policy": source.policy, "weight": weight,
        "figures": {
            name: {key: None if value != value else value for key, value in own.items()}
            for name, own in figures.items()
        },
    })
    print_table(
        f"guidance at weight {weight:g} against the teacher of {records}",
        GUIDE_COLUMNS, guide_rows(figures),
    )
    say(f"written to {out}")
