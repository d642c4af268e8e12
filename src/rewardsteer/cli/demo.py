"""``rewardsteer demo``: the whole workflow on a generated task, in minutes on a CPU, offline."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.starting import check_out, say


def demo_command(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change: reward_steps=200, …")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
) -> None:
    """Train a flawed policy and its reward models, compare decoding methods, write a report."""
    import logging
    import sys

    from rewardsteer.configuration import load_config
    from rewardsteer.demo.config import DemoConfig

    config = load_config(DemoConfig, {"seed": seed}, overrides or ())
    check_out(out, overwrite=overwrite)
    say(f"Demo in {out}: training on this machine, minutes on two cores …")

    from rewardsteer.quiet import quiet_libraries

    # Called before the imports, because libraries warn on import.
    quiet_libraries(logging.WARNING)

    from rewardsteer.demo.story import run_demo
    from rewardsteer.reports.tables import (
        AUROC_COLUMNS,
        METHOD_COLUMNS,
        auroc_rows,
        method_rows,
        print_table,
    )

    summary = run_demo(
        config, out, overwrite=overwrite, progress=sys.stderr.isatty(),
        announce=lambda line: typer.echo(line, err=True),
    )
    rows = auroc_rows(summary["reward_models"])
    print_table("reward models on fresh solutions", AUROC_COLUMNS, rows)
    goal = summary["goal"]
    typer.echo(
        f"goal-conditioned: AUROC {goal['auroc']:.3f} (plain {goal['auroc_baseline']:.3f}); vote "
        f"{goal['vote_accuracy']:.3f}, filtered by similarity {goal['vote_accuracy_filtered']:.3f} "
        f"with {goal['tokens_saved']:.1%} of the tokens saved"
    )
    weights = ", ".join(f"{name} {weight:g}" for name, weight in summary["weights"].items())
    title = f"methods on {config.test_prompts} test questions (weights: {weights})"
    print_table(title, METHOD_COLUMNS, method_rows(summary["methods"]))
    typer.echo(f"{summary['seconds']:.0f} s; report: {out / 'report.html'}")
