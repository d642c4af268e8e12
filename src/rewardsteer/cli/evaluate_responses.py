"""``rewardsteer evaluate responses``: agreement with ratings, ranks and labels."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.devices import Device
from rewardsteer.cli.evaluation_options import ResumeScores
from rewardsteer.cli.kind import KindOption, KindOptions, read_kind
from rewardsteer.cli.starting import check_out, check_reward_model, loading, say
from rewardsteer.cli.template import TemplateOption, read_template, show_template


def responses_command(
    reward_model: Annotated[str, typer.Option(help="Folder, hub name or address.")],
    input_: Annotated[
        Path, typer.Option("--input", help="File or folder of responses with numbers.")
    ],
    source: Annotated[
        str, typer.Option(help="How --input is read: ratings, ranked or labels.")
    ] = "ratings",
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/responses"),
    batch_size: Annotated[int, typer.Option(min=1, help="Responses scored together.")] = 16,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
    resume: ResumeScores = False,
    template: TemplateOption = None, kind: KindOption = None, kind_option: KindOptions = None,
) -> None:
    """Correlation with ratings, AUROC of labels, and pairs of one prompt, with intervals."""
    from rewardsteer.data.responses import Responses
    from rewardsteer.data.sources import SOURCES, held_out_rows
    from rewardsteer.errors import DataError
    from rewardsteer.outputs import claim_folder, file_name, write_json

    SOURCES.check(source)
    check_reward_model(reward_model)
    of_kind = read_kind(kind, kind_option)
    check_out(out, resume=resume, overwrite=overwrite)
    rows = held_out_rows(source, input_)
    if not all(isinstance(row, Responses) for row in rows):
        raise DataError(
            f"Expected responses with numbers, the source {source} gives pairs; use 'rewardsteer "
            "evaluate preference'."
        )
    loading(reward_model)

    from rewardsteer.evaluation.responses import evaluate_responses
    from rewardsteer.models.kinds import load_scorer
    from rewardsteer.progress import progress_bar
    from rewardsteer.reports.agreement import RESPONSE_COLUMNS, response_rows
    from rewardsteer.reports.tables import print_table

    scorer = load_scorer(
        reward_model, device=device, template=read_template(template), **of_kind
    )
    show_template(scorer.template, reward_model)
    claim_folder(out, resume=resume, overwrite=overwrite)
    with progress_bar("scoring responses", "responses") as announce:
        figures = evaluate_responses(
            scorer, rows, batch_size=batch_size, announce=announce,
            file=out / "scores" / file_name(reward_model),
        )
    write_json(out / "metrics.json", {
        "reward_model": reward_model, "fingerprint": scorer.fingerprint, "numbers": figures,
    })
    print_table(f"agreement with {input_}", RESPONSE_COLUMNS, response_rows(figures))
    say(f"written to {out}")
