"""``rewardsteer evaluate frontier``: methods of several comparisons by value and cost."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.starting import check_out, say


def frontier_command(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER…",
            help="Outputs of 'evaluate generation' on the same prompts. Folders with the same "
            "method are runs of it (seeds).",
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="reward, second_reward, …; repeatable; default: all."),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(help="seconds, tokens, passes or kl; repeatable; default: what was measured."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="Label of a control (untrained head, low temperature, random gate); "
                     "repeatable."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="COST=BUDGET, as kl=1: sweeps of weights, read off there; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/frontier"),
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
) -> None:
    """Reward against seconds, tokens, passes and KL, at equal budgets, paired, over seeds."""
    from rewardsteer.evaluation.frontier import frontier
    from rewardsteer.evaluation.frontier_methods import load_methods
    from rewardsteer.outputs import claim_folder, write_json, write_text

    budgets = _budgets(at or [])
    check_out(out, overwrite=overwrite)
    methods, baseline = load_methods(folders)
    content = frontier(
        methods, baseline, metrics=metric or (), costs=cost or (), controls=control or (),
        at=budgets,
    )

    from rewardsteer.reports import cost_frontier as report
    from rewardsteer.reports.tables import print_table

    claim_folder(out, overwrite=overwrite)
    write_json(out / "frontier.json", content | {"folders": [str(one) for one in folders]})
    write_text(out / "frontier.csv", report.table_csv(content))
    write_text(out / "frontier.md", report.table_markdown(content))
    for name, drawn in report.plots(content).items():
        write_text(out / f"frontier-{name}.svg", drawn)
    print_table(
        f"{len(methods)} methods, {content['intervals']}", report.columns(content),
        report.rows(content),
    )
    for one in content["metrics"]:
        for name in content["costs"]:
            print_table(
                f"{one} at equal {name}", report.STEP_COLUMNS, report.step_rows(content, one, name)
            )
    if content["equal"]:
        print_table("sweeps at equal cost", report.EQUAL_COLUMNS, report.equal_rows(content))
    say(report.controls_line(content))
    say(f"written to {out}")


def _budgets(given: list[str]) -> dict[str, list[float]]:
    from rewardsteer.errors import ConfigError

    found: dict[str, list[float]] = {}
    for one in given:
        name, sign, number = one.partition("=")
        try:
            found.setdefault(name, []).append(float(number if sign else "no number"))
        except ValueError as error:
            raise ConfigError(f"Expected --at COST=BUDGET, as kl=1, got {one!r}.") from error
    return found
