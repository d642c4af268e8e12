"""``rewardsteer evaluate overoptimization``: proxy and gold reward of best of n."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.starting import check_out, say


def overoptimization_command(
    proxy: Annotated[
        Path,
        typer.Option(help="Samples scored by the reward model that chooses, as 'rewardsteer "
                     "score' wrote, several samples per question."),
    ],
    gold: Annotated[
        Path | None,
        typer.Option(help="The same samples scored by the reward model that counts; default: "
                     "their labels 'is_correct'."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/overoptimization"),
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
) -> None:
    """Best of n for n = 1, 2, 4, … from recorded samples: proxy and gold reward."""
    from rewardsteer.errors import DataError
    from rewardsteer.evaluation.overoptimization import overoptimization
    from rewardsteer.evaluation.recorded_samples import load_recorded
    from rewardsteer.outputs import claim_folder, write_json, write_text
    from rewardsteer.reports import overoptimization as report
    from rewardsteer.reports.tables import print_table

    for place in filter(None, (proxy, gold)):
        if not place.exists():
            raise DataError(f"Expected scored samples at {place}, there is nothing.")
    check_out(out, overwrite=overwrite)
    prompts, left_out = load_recorded(proxy, gold)
    content = {
        "proxy": str(proxy), "gold": "is_correct" if gold is None else str(gold),
        "left_out": left_out, **overoptimization(prompts),
    }
    claim_folder(out, overwrite=overwrite)
    write_json(out / "overoptimization.json", content)
    write_text(out / "overoptimization.svg", report.curve_plot(content))
    print_table(
        f"best of n, {content['samples']} samples of {len(prompts)} prompts", report.CURVE_COLUMNS,
        report.curve_rows(content),
    )
    if left_out:
        say(f"{left_out} samples have only one of the two values and were left out")
    say(report.verdict(content))
    say(f"written to {out}")
