"""``rewardsteer evaluate benchmark``: reward models on public benchmarks, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rewardsteer.cli.devices import Device
from rewardsteer.cli.evaluation_options import ResumeScores
from rewardsteer.cli.kind import KindOption, KindOptions, read_kind
from rewardsteer.cli.starting import check_out, check_reward_model, loading, say
from rewardsteer.cli.template import TemplateOption, read_template, show_template

if TYPE_CHECKING:
    from rewardsteer.data.template import Template
    from rewardsteer.evaluation.reward_benchmarks.base import Item, RewardBenchmark
    from rewardsteer.evaluation.reward_benchmarks.resampling import Resampled
    from rewardsteer.evaluation.reward_benchmarks.run import Scored
    from rewardsteer.models.text_scorer import TextScorer

# A model's figures with their bootstrap samples, and the figures of the controls.
Measured = tuple["Resampled", dict[str, dict[str, float]]]


def benchmark_command(
    benchmarks: Annotated[
        list[str],
        typer.Argument(
            metavar="BENCHMARK[=PATH]…",
            help="Names, with the file or folder of the published rows; without one the hub or its "
            "cache.",
        ),
    ],
    reward_model: Annotated[
        list[str] | None, typer.Option(help="Folder or hub name; may be given several times.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Scores that another program wrote, in place of a model: JSON lines with "
                     "id and scores."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Steps below it are incorrect (processbench, prmbench); default 0.5."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("out/benchmark"),
    batch_size: Annotated[int, typer.Option(min=1, help="Texts scored together.")] = 16,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
    resume: ResumeScores = False,
    runs: Annotated[
        bool,
        typer.Option("--runs", help="The reward models are runs of one recipe: show the mean, its "
                     "spread and an interval over runs and questions."),
    ] = False,
    template: TemplateOption = None, kind: KindOption = None,
    kind_option: KindOptions = None,
) -> None:
    """Figures of reward models on public benchmarks, with intervals and controls."""
    from rewardsteer.evaluation.reward_benchmarks import REWARD_BENCHMARKS
    from rewardsteer.evaluation.reward_benchmarks.loading import load_benchmark
    from rewardsteer.evaluation.reward_benchmarks.measuring import table
    from rewardsteer.evaluation.reward_benchmarks.run import measured_together
    from rewardsteer.outputs import claim_folder, write_json

    places = dict(_place(one) for one in benchmarks)
    for name, place in places.items():
        REWARD_BENCHMARKS.check(name)
        _check_place(name, place)
    models = reward_model or []
    _check_given(models, scores, list(places), runs)
    how = read_kind(kind, kind_option)
    check_reward_model(*models)
    check_out(out, overwrite=overwrite, resume=resume)
    loading(*models, *places)

    options = {} if threshold is None else {"threshold": threshold}
    found: dict[str, dict[str, Measured]] = {}
    # Data at fault shows before a model loads.
    loaded = {name: load_benchmark(name, place, **options) for name, place in places.items()}
    if scores is not None:
        [(name, (benchmark, items))] = loaded.items()
        found[name] = {scores.name: _recorded(scores, name, benchmark, items)}
        claim_folder(out, overwrite=overwrite, resume=resume)
    scored: dict[str, dict[str, Scored]] = {name: {} for name in places}
    for number, model in enumerate(models):
        scorer = _scorer(model, device, read_template(template), how)
        if number == 0:
            # Nothing is written if the first model cannot be loaded.
            claim_folder(out, overwrite=overwrite, resume=resume)
        for name, own in _scored(scorer, model, loaded, out, batch_size).items():
            scored[name][model] = own
    if models:
        found = {
            name: measured_together(benchmark, scored[name])
            for name, (benchmark, _) in loaded.items()
        }
    write_json(out / "metrics.json", {
        name: {label: table(*one) for label, one in own.items()} for name, own in found.items()
    })
    if compared := _show(found, runs):
        write_json(out / ("runs.json" if runs else "differences.json"), compared)
    say(f"written to {out}")


def _place(given: str) -> tuple[str, str | None]:
    name, equals, place = given.partition("=")
    return name, place if equals else None


def _check_place(name: str, place: str | None) -> None:
    from rewardsteer.errors import DataError

    if place is not None and not Path(place).exists():
        raise DataError(f"Expected the rows of {name} at {place}, there is nothing.")


def _check_given(
    models: list[str], scores: Path | None, names: list[str], runs: bool
) -> None:
    from rewardsteer.errors import ConfigError, DataError

    if bool(models) == (scores is not None):
        raise ConfigError("Give either --reward-model or --scores.")
    if runs and len(set(models)) < 2:
        raise ConfigError("--runs takes several --reward-model, one per run of the recipe.")
    if scores is not None and len(names) != 1:
        raise ConfigError("A file of --scores belongs to one benchmark; name that one alone.")
    if scores is not None and not scores.is_file():
        raise DataError(f"Expected a file of scores at {scores}, there is none.")


def _recorded(
    scores: Path, name: str, benchmark: "RewardBenchmark", items: "list[Item]"
) -> "Measured":
    from rewardsteer.evaluation.data_notes import item_notes
    from rewardsteer.evaluation.reward_benchmarks.measuring import controls, measure
    from rewardsteer.evaluation.reward_benchmarks.run import recorded_scores

    scored, values = recorded_scores(scores, items)
    if len(scored) < len(items):
        say(f"{scores} has scores of {len(scored)} of {len(items)} items; the others count nowhere")
    for note in item_notes(scored, values):
        say(f"{name}: {note}")
    return measure(benchmark, scored, values), controls(benchmark, scored)


def _scorer(
    model: str, device: str, template: "Template | None", how: dict[str, Any]
) -> "TextScorer":
    from rewardsteer.models.kinds import load_scorer

    scorer = load_scorer(model, device=device, template=template, pairs=True, **how)
    show_template(scorer.template, model)
    return scorer


def _scored(
    scorer: "TextScorer", model: str,
    loaded: "Mapping[str, tuple[RewardBenchmark, list[Item]]]", out: Path, batch_size: int,
) -> "dict[str, Scored]":
    from rewardsteer.evaluation.reward_benchmarks.run import notes_of, score_items
    from rewardsteer.outputs import file_name
    from rewardsteer.progress import progress_bar

    found = {}
    for name, (benchmark, items) in loaded.items():
        with progress_bar(name, "items") as announce:
            found[name] = score_items(
                scorer, benchmark, items, batch_size=batch_size, announce=announce,
                file=out / "scores" / file_name(f"{name}-{model}"),
            )
        for note in notes_of(found[name]):
            say(f"{name}: {note}")
    return found


def _show(found: Mapping[str, Mapping[str, "Measured"]], runs: bool) -> dict[str, Any]:
    """Print a table per benchmark; returns the differences of models or means of runs."""
    from rewardsteer.evaluation.reward_benchmarks.measuring import table
    from rewardsteer.evaluation.reward_benchmarks.resampling import against_first, over_models
    from rewardsteer.evaluation.statistics import over
    from rewardsteer.reports.benchmarks import figure_rows, gain_rows, run_rows
    from rewardsteer.reports.tables import print_table

    compared: dict[str, Any] = {}
    for name, models in found.items():
        tables = {label: table(*one) for label, one in models.items()}
        resampled = {label: own for label, (own, _) in models.items()}
        first, *others = resampled
        most = max(resampled[first].clusters.values())
        print_table(f"{name}, {over(most, 'question')}", *figure_rows(tables))
        if runs:
            means = over_models(list(resampled.values()))
            print_table(f"{name}, {len(models)} runs", *run_rows(means))
            compared[name] = {figure: one.figures("score") for figure, one in means.items()}
        elif others:
            gains = against_first(resampled)
            print_table(
                f"{name}: difference to {first}, p adjusted by Holm", *gain_rows(gains, others)
            )
            compared[name] = {
                figure: {label: one.figures("difference") for label, one in own.items()}
                for figure, own in gains.items()
            }
    return compared
