"""``rewardsteer evaluate``: methods by reward and cost, reward models by held-out preferences."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Measure methods and reward models.")

Out = Annotated[Path, typer.Option(help="Output folder.")]
Resume = Annotated[bool, typer.Option(help="Go on with an interrupted evaluation in OUT.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in OUT.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]


@app.command("generation")
def generation_command(
    model: Annotated[str, typer.Option(help="Policy: a causal LM folder or hub name.")],
    prompts: Annotated[Path, typer.Option(help="JSONL with a 'prompt' a line.")],
    methods: Annotated[
        Path,
        typer.Option(
            help="YAML: label → decoding settings, and 'reward_model' for guided methods."
        ),
    ],
    judge: Annotated[Path, typer.Option(help="Scalar reward model that gives the rewards.")],
    out: Out = Path("out/evaluation"),
    limit: Annotated[int | None, typer.Option(help="Use the first so many prompts.")] = None,
    device: Device = "cpu", resume: Resume = False, overwrite: Overwrite = False,
) -> None:
    """Compare decoding methods on the same prompts; the first is the baseline."""
    from rewardsteer.configuration import load_config, read_yaml
    from rewardsteer.decoding.config import DecodingConfig
    from rewardsteer.decoding.requests import read_requests
    from rewardsteer.errors import ConfigError

    settings: dict[str, tuple[DecodingConfig, str | None]] = {}
    for label, values in read_yaml(methods).items():
        if not isinstance(values, dict):
            raise ConfigError(f"{methods}: expected settings under {label!r}, got {values!r}.")
        reward_model = values.pop("reward_model", None)
        settings[str(label)] = (load_config(DecodingConfig, values), reward_model)
    if not settings:
        raise ConfigError(f"{methods} names no method; expected 'label: {{method: …}}' entries.")
    requests = read_requests(prompts, limit=limit)
    _run(settings, model, requests, judge, out, device, resume=resume, overwrite=overwrite)


def _run(
    settings: dict[str, Any], model: str, requests: list[Any], judge: Path, out: Path, device: str,
    *, resume: bool, overwrite: bool,
) -> None:
    from rewardsteer.cli.devices import parse_device
    from rewardsteer.decoding.engines.hf import load_policy
    from rewardsteer.decoding.generate import build_method
    from rewardsteer.evaluation.generation import Entry, Judge, compare
    from rewardsteer.models.checkpoint import load_tokenizer
    from rewardsteer.models.scorer import Scorer
    from rewardsteer.outputs import claim_folder, write_json, write_text
    from rewardsteer.quiet import quiet_libraries
    from rewardsteer.reports.plots import Point, scatter
    from rewardsteer.reports.tables import METHOD_COLUMNS, method_rows, print_table

    quiet_libraries()
    where = parse_device(device)
    folders = {folder for _, folder in settings.values() if folder} | {str(judge)}
    scorers = {folder: Scorer.load(folder, device=where) for folder in sorted(folders)}
    entries = [
        Entry(label, config, scorers[folder] if folder else None)
        for label, (config, folder) in settings.items()
    ]
    for entry in entries:
        build_method(entry.config, entry.scorer)
    tokenizer = load_tokenizer(model)
    claim_folder(out, resume=resume, overwrite=overwrite)
    write_json(out / "run.json", {
        "model": model, "judge": str(judge), "judge_fingerprint": scorers[str(judge)].fingerprint,
        "methods": {
            label: config.model_dump(mode="json") | {"reward_model": folder}
            for label, (config, folder) in settings.items()
        },
    })
    summary = compare(
        entries, load_policy(model, device=where), tokenizer, requests,
        Judge(scorers[str(judge)]), out, announce=lambda label: typer.echo(label, err=True),
    )
    points = [
        Point(label, 1e3 * f["seconds_per_token"], f["reward"], f.get("reward_stderr", 0.0))
        for label, f in summary.items()
    ]
    write_text(out / "frontier.svg", scatter(
        points, x_label="milliseconds per generated token", y_label="mean reward", log_x=True
    ))
    print_table(f"{len(requests)} prompts", METHOD_COLUMNS, method_rows(summary))


@app.command("preference")
def preference_command(
    reward_model: Annotated[Path, typer.Option(help="Reward model folder.")],
    data: Annotated[Path, typer.Option(help="Folder made by 'rewardsteer data prepare'.")],
    out: Out = Path("out/preference"),
    batch_size: Annotated[int, typer.Option(help="Rows read together.")] = 16,
    device: Device = "cpu", overwrite: Overwrite = False,
) -> None:
    """Accuracy of a reward model on held-out comparisons, with an interval, by subset."""
    from rewardsteer.cli.devices import parse_device
    from rewardsteer.evaluation.preference import evaluate_preference
    from rewardsteer.models.scorer import Scorer
    from rewardsteer.outputs import claim_folder, write_json
    from rewardsteer.quiet import quiet_libraries
    from rewardsteer.reports.tables import PREFERENCE_COLUMNS, preference_rows, print_table

    quiet_libraries()
    scorer = Scorer.load(reward_model, device=parse_device(device))
    figures = evaluate_preference(scorer, data, batch_size=batch_size)
    claim_folder(out, overwrite=overwrite)
    write_json(out / "metrics.json", {"reward_model": str(reward_model), **figures})
    print_table("held-out comparisons", PREFERENCE_COLUMNS, preference_rows(figures))
