"""``rewardsteer evaluate``: evaluation of reward models and decoding methods."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rewardsteer.cli.devices import Device
from rewardsteer.cli.evaluate_benchmark import benchmark_command
from rewardsteer.cli.evaluate_frontier import frontier_command
from rewardsteer.cli.evaluate_generation import generation_command
from rewardsteer.cli.evaluate_guide import guide_command
from rewardsteer.cli.evaluate_overoptimization import overoptimization_command
from rewardsteer.cli.evaluate_responses import responses_command
from rewardsteer.cli.evaluate_runs import runs_command
from rewardsteer.cli.evaluation_options import ResumeScores
from rewardsteer.cli.group import Command, Group
from rewardsteer.cli.kind import KindOption, KindOptions, read_kind
from rewardsteer.cli.starting import check_out, check_reward_model, counted, loading, say
from rewardsteer.cli.template import TemplateOption, read_template, show_template

app = typer.Typer(
    cls=Group, rich_markup_mode=None, no_args_is_help=True,
    help="Measure methods and reward models.",
)
app.command("generation", cls=Command)(generation_command)
app.command("benchmark", cls=Command)(benchmark_command)
app.command("responses", cls=Command)(responses_command)
app.command("overoptimization", cls=Command)(overoptimization_command)
app.command("guide", cls=Command)(guide_command)
app.command("runs", cls=Command)(runs_command)
app.command("frontier", cls=Command)(frontier_command)

Out = Annotated[Path, typer.Option(help="Output folder.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in OUT.")]


@app.command("preference", cls=Command)
def preference_command(
    reward_model: Annotated[str, typer.Option(help="Reward model: folder, hub name or address.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder made by 'rewardsteer data prepare'.")
    ] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", help="File or folder of pairs, instead of --data.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Format of --input: pairs (reward-bench, TRL), judged, hh, …")
    ] = "pairs",
    out: Out = Path("out/preference"),
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs per batch.")] = 16,
    device: Device = "auto", overwrite: Overwrite = False, resume: ResumeScores = False,
    template: TemplateOption = None, kind: KindOption = None, kind_option: KindOptions = None,
) -> None:
    """Accuracy of a reward model on held-out comparisons, with an interval, by subset."""
    from rewardsteer.data.sources import SOURCES, held_out_pairs
    from rewardsteer.outputs import claim_folder, file_name, write_json, write_text

    SOURCES.get(source)
    _check_pairs(data, input_)
    of_kind = read_kind(kind, kind_option)
    check_reward_model(reward_model)
    check_out(out, resume=resume, overwrite=overwrite)
    loading(reward_model)

    from rewardsteer.evaluation.preference import evaluate_comparisons, evaluate_preference
    from rewardsteer.models.kinds import load_scorer
    from rewardsteer.progress import progress_bar
    from rewardsteer.reports.correctness_plots import reliability_plot

    written = read_template(template)
    pairs = held_out_pairs(source, input_) if input_ is not None else []
    scorer = load_scorer(reward_model, device=device, template=written, **of_kind)
    show_template(scorer.template, reward_model)
    claim_folder(out, resume=resume, overwrite=overwrite)
    with progress_bar("scoring pairs", "pairs") as announce:
        if data is not None:
            figures = evaluate_preference(scorer, data, batch_size=batch_size, announce=announce)
        else:
            figures = evaluate_comparisons(
                scorer, pairs, batch_size=batch_size, announce=announce,
                file=out / "scores" / file_name(reward_model),
            )
    write_json(out / "metrics.json", {
        "reward_model": reward_model, "fingerprint": scorer.fingerprint,
        "provenance": scorer.provenance(), **figures,
    })
    write_text(
        out / "reliability.svg",
        reliability_plot([{"percentile": 1.0, "bins": figures["calibration"]["bins"]}]),
    )
    _show_preference(
        "held-out comparisons" if data is not None else f"comparisons in {input_}", figures
    )
    say(f"written to {out}")


def _show_preference(title: str, figures: dict[str, Any]) -> None:
    from rewardsteer.reports import tables

    tables.print_table(title, tables.PREFERENCE_COLUMNS, tables.preference_rows(figures))
    tables.print_table(
        "controls", tables.PREFERENCE_CONTROL_COLUMNS, tables.preference_control_rows(figures)
    )
    for note in (*figures["notes"], *figures["controls"]["notes"]):
        say(note)
    if figures["too_long"]:
        say(f"{counted(figures['too_long'], 'pair')} longer than the reward model can read: left "
            "out")


def _check_pairs(data: Path | None, input_: Path | None) -> None:
    from rewardsteer.data.sources import require_pairs
    from rewardsteer.data.store import load_manifest
    from rewardsteer.errors import ConfigError

    if (data is None) == (input_ is None):
        raise ConfigError("Give either --data (a prepared folder) or --input (a file of pairs).")
    if input_ is not None:
        require_pairs(input_)
    if data is not None:
        load_manifest(data)


@app.command("correctness", cls=Command)
def correctness_command(
    scores: Annotated[
        Path,
        typer.Option(
            "--scores", "--input",
            help="Folder or file of scored solutions, from 'rewardsteer score'.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings as name=value: loss=0.01 confidence=0.95 start=5 …"),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="The same solutions scored by another reward model, to compare with."),
    ] = None,
    out: Out = Path("out/correctness"),
    overwrite: Overwrite = False,
) -> None:
    """AUROC, votes, filtering and calibration on solutions labelled correct or incorrect."""
    from rewardsteer.configuration import load_config
    from rewardsteer.errors import DataError
    from rewardsteer.evaluation.correctness.config import CorrectnessConfig
    from rewardsteer.outputs import claim_folder, write_json, write_text

    config = load_config(CorrectnessConfig, {}, settings or [])
    for place in filter(None, (scores, baseline)):
        if not place.exists():
            raise DataError(f"Expected scored solutions at {place}, there is nothing.")
    check_out(out, overwrite=overwrite)
    say(f"Reading {scores} …")

    from rewardsteer.evaluation.correctness.run import evaluate_correctness
    from rewardsteer.evaluation.correctness.scored_files import load_scored
    from rewardsteer.reports.correctness_plots import plots

    sampled, greedy = load_scored(scores)
    other = None
    if baseline is not None:
        theirs = load_scored(baseline)
        other = theirs[1] | theirs[0]
    claim_folder(out, overwrite=overwrite)
    metrics = evaluate_correctness(
        sampled, greedy, config, baseline=other,
        announce=lambda name: typer.echo(name, err=True),
    )
    write_json(out / "metrics.json", metrics)
    write_json(out / "settings.json", config.model_dump(mode="json"))
    for name, one in (sampled | greedy).items():
        if name not in metrics:
            say(f"{name}: none of its {one.unlabelled} solutions has a label; left out")
    for name, svg in plots(metrics).items():
        write_text(out / f"{name}.svg", svg)
    _show_correctness(metrics)
    say(f"written to {out}")


def _show_correctness(metrics: dict[str, Any]) -> None:
    from rewardsteer.reports.correctness_tables import TABLES
    from rewardsteer.reports.tables import print_table

    for title, _, columns, rows_of in TABLES:
        if rows := rows_of(metrics):
            print_table(title, columns, rows)
    for name, figures in metrics.items():
        for text in figures.get("controls", {}).get("notes", []):
            typer.echo(f"{name}: {text}", err=True)
        for signal, record in figures.get("filtering", {}).items():
            if "risk_left_out" in record:
                typer.echo(f"{name}, {signal}: {record['risk_left_out']}", err=True)
        for note in ("undefined", "left_out"):
            if note in figures:
                typer.echo(f"{name}: {figures[note]}", err=True)
        for count, noun, what in (
            ("unlabelled", "solution", "without a label: left out"),
            ("skipped", "solution", "without a reward: they vote, but are not ranked"),
            ("repeated", "row", "left out: each repeats another one"),
            ("same_text", "question", "with the text of another one, which intervals take for "
             "independent"),
            ("answers_from_text", "answer", "taken from the text, for want of predicted_answer"),
        ):
            if figures[count]:
                say(f"{name}: {counted(figures[count], noun)} {what}")


@app.command("answers", cls=Command)
def answers_command(
    input_: Annotated[
        Path, typer.Option("--input", help="Solutions with labels; layouts: docs/scoring.md.")
    ],
    problems: Annotated[
        list[str] | None, typer.Option(help="Reference answers of a benchmark, as NAME=FILE.")
    ] = None,
    out: Out = Path("out/answers"),
    overwrite: Overwrite = False,
) -> None:
    """How far labels that come with solutions agree with our grading of their answers."""
    from rewardsteer.errors import DataError
    from rewardsteer.evaluation.grading import agreement
    from rewardsteer.evaluation.score_inputs import read_answered
    from rewardsteer.outputs import claim_folder, write_json, write_text
    from rewardsteer.reports.agreement import ANSWER_COLUMNS, answer_rows
    from rewardsteer.reports.tables import print_table

    check_out(out, overwrite=overwrite)
    say(f"Reading {input_} …")
    figures = agreement(read_answered(input_, problems or []))
    if not figures:
        raise DataError(
            f"No solution in {input_} has both a label and a reference answer; give --problems."
        )
    differing = [
        {"benchmark": name, **row} for name, one in figures.items() for row in one.pop("differing")
    ]
    claim_folder(out, overwrite=overwrite)
    write_json(out / "metrics.json", figures)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in differing)
    write_text(out / "differing.jsonl", lines)
    print_table(
        "labels and our grading",
        ANSWER_COLUMNS, answer_rows(figures),
    )
    if differing:
        say(f"{counted(len(differing), 'solution')} graded otherwise: {out / 'differing.jsonl'}")
