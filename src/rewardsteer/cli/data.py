"""``rewardsteer data``: list and prepare sources, write prompts, describe a folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rewardsteer.cli.completion import complete_recipe, complete_source
from rewardsteer.cli.group import Command, Group
from rewardsteer.cli.starting import check_model, check_writable, loading
from rewardsteer.cli.template import TemplateOption, read_template, show_template

app = typer.Typer(
    cls=Group, rich_markup_mode=None, no_args_is_help=True, help="Prepare preference data."
)


@app.command("list", cls=Command)
def list_command() -> None:
    """Known sources."""
    from rewardsteer.data.sources import SOURCES

    for name in SOURCES.names():
        typer.echo(name)


@app.command("prepare", cls=Command)
def prepare_command(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Name of a source, which is prepared as in the recipes named after it, or a YAML "
            "file of data settings; with --recipe it replaces the recipe's source.",
            autocompletion=complete_source,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings: dotted.name=value.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe of 'rewardsteer train' whose data settings are used: a name or a file.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer folder or hub name; not needed for arithmetic."),
    ] = None,
    path: Annotated[str | None, typer.Option(help="Local file or folder of the source.")] = None,
    num_proc: Annotated[
        int | None, typer.Option(min=1, help="Processes that tokenize; default: one per core.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("out/data"),
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
    template: TemplateOption = None,
) -> None:
    """Prepare the full, partial and SFT sets of a source."""
    from rewardsteer.configuration import load_config
    from rewardsteer.data.config import DataConfig
    from rewardsteer.data.prepare import prepare
    from rewardsteer.data.template import Template, stored_template
    from rewardsteer.errors import ConfigError
    from rewardsteer.outputs import check_folder
    from rewardsteer.training.recipes import source_data

    changes = list(overrides or ())
    if source is not None and "=" in source:
        # With a recipe the first positional argument is a setting, not a source.
        changes.insert(0, source)
        source = None
    settings = _settings(source, recipe, path)
    if num_proc is not None:
        settings["num_proc"] = num_proc
    config = load_config(DataConfig, settings, changes)
    written = read_template(template)
    if written is not None:
        config = config.model_copy(update={"template": written})
    check_folder(out, overwrite=overwrite)
    check_model(tokenizer)
    check_writable(out)
    loading(tokenizer or "datasets")
    if tokenizer is None:
        if {one.name for one in config.sources} != {"arithmetic"}:
            raise ConfigError("Give --tokenizer: lengths and prefixes are counted in its tokens.")
        from rewardsteer.data.sources.arithmetic import build_tokenizer

        made = build_tokenizer()
    else:
        from rewardsteer.models.checkpoint import load_tokenizer
        from rewardsteer.models.start import trained_template

        made = load_tokenizer(tokenizer)
        if written is None and config.template == Template():
            trained = trained_template(tokenizer)
            config = config.model_copy(update={"template": trained or config.template})
    manifest = prepare(config, made, out, overwrite=overwrite)
    show_template(stored_template(manifest.template), tokenizer or "the arithmetic task")
    _describe(manifest)
    used = [recipe] if recipe else source_data(source or "")[0]
    if used:
        typer.echo(f"settings of the recipe {', '.join(used)}", err=True)
    typer.echo(f"prepared data: {out}", err=True)


def _settings(source: str | None, recipe: str | None, path: str | None) -> dict[str, Any]:
    """Data settings of a source, a recipe, a recipe with another source, or a file."""
    from rewardsteer.configuration import read_yaml
    from rewardsteer.data.sources import SOURCES
    from rewardsteer.errors import ConfigError
    from rewardsteer.training.recipes import recipe_data, source_data

    if source is None and recipe is None:
        raise ConfigError("Give a source, a YAML file of data settings, or --recipe.")
    if source is not None and source.endswith((".yaml", ".yml")) and recipe is None:
        settings = read_yaml(Path(source))
    elif recipe is not None:
        settings = recipe_data(recipe)
        if source is not None:
            settings["sources"] = [{"name": source}]
    else:
        assert source is not None
        SOURCES.get(source)
        _, settings = source_data(source)
        settings["sources"] = [{"name": source}]
    if path is not None:
        one = settings.pop("source", None)
        listed = [one] if one else settings.get("sources") or []
        settings["sources"] = [
            {**({"name": each} if isinstance(each, str) else each), "path": path} for each in listed
        ]
    return settings


@app.command("prompts", cls=Command)
def prompts_command(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder made by 'rewardsteer data prepare', a source, or a benchmark (of "
            "'evaluate benchmark', or gsm8k, math, …)."
        ),
    ],
    path: Annotated[str | None, typer.Option(help="Local file or folder of the source.")] = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    rows: Annotated[
        int | None, typer.Option(min=1, help="Draw N prompts at random; default: all, in order.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    published: Annotated[
        bool,
        typer.Option(help="The prompts of the publication (tldr: 100 of the test split, seed 44)."),
    ] = False,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("prompts.jsonl"),
    overwrite: Annotated[bool, typer.Option(help="Replace OUT.")] = False,
) -> None:
    """Write prompts for 'rewardsteer generate --prompts'."""
    from rewardsteer.data.prompts import (
        draw,
        prepared_prompts,
        published_prompts,
        source_prompts,
        write_prompts,
    )
    from rewardsteer.evaluation.benchmark_prompts import NAMES, benchmark_prompts

    loading(source)
    if published:
        found = published_prompts(source, path)
    elif source in NAMES and not Path(source).is_dir():
        # A benchmark has only its test split.
        found = draw(benchmark_prompts(source, path), rows, seed)
    else:
        every = (
            prepared_prompts(Path(source), split) if Path(source).is_dir()
            else source_prompts(source, path, split)
        )
        found = draw(every, rows, seed)
    write_prompts(found, out, overwrite=overwrite)
    typer.echo(f"{len(found)} prompts: {out}", err=True)


@app.command("stats", cls=Command)
def stats_command(
    folder: Annotated[Path, typer.Argument(help="Folder made by 'rewardsteer data prepare'.")],
) -> None:
    """Rows, drops and token lengths of a prepared folder."""
    from itertools import chain

    import numpy as np

    from rewardsteer.data.store import SPLITS, load_manifest, load_set
    from rewardsteer.reports.tables import print_table

    manifest = load_manifest(folder)
    loading(folder)
    _describe(manifest)
    rows = []
    for split in SPLITS:
        data = load_set(folder, split, manifest.sets[0])
        for name in ("prompt_ids", "chosen_ids", "rejected_ids", "response_ids"):
            if name not in data.column_names:
                continue
            listed = data[name] if name != "response_ids" else chain.from_iterable(data[name])
            lengths = np.array([len(ids) for ids in listed])
            rows.append(
                [f"{split} {name.removesuffix('_ids')}", f"{lengths.mean():.1f}",
                 *(f"{value:.0f}" for value in np.percentile(lengths, [50, 95, 100]))]
            )
    print_table("length in tokens", ("", "mean", "median", "95 %", "longest"), rows)


def _describe(manifest: Any) -> None:
    from rewardsteer.reports.tables import print_table

    print_table(
        f"rows (fingerprint {manifest.fingerprint})", ("split", *manifest.sets),
        [[split, *(str(sets[name]) for name in manifest.sets)]
         for split, sets in manifest.counts.items()],
    )
    for reason, count in sorted(manifest.dropped.items()):
        typer.echo(f"dropped: {count} {reason}")
    for note in manifest.notes:
        typer.echo(f"note: {note}")
