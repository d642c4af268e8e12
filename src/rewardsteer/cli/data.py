"""``rewardsteer data``: list sources, prepare the three sets, describe a prepared folder."""

from pathlib import Path
from typing import Annotated

import typer

from rewardsteer.cli.completion import complete_source
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
        str,
        typer.Argument(
            help="A source name, or a YAML file of data settings.", autocompletion=complete_source
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings: dotted.name=value.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer folder or hub name; not needed for arithmetic alone."),
    ] = None,
    path: Annotated[str | None, typer.Option(help="Local file or folder of the source.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("out/data"),
    overwrite: Annotated[bool, typer.Option(help="Replace what is in OUT.")] = False,
    template: TemplateOption = None,
) -> None:
    """Prepare the full, partial and SFT sets of a source."""
    from rewardsteer.configuration import load_config, read_yaml
    from rewardsteer.data.config import DataConfig
    from rewardsteer.data.prepare import prepare
    from rewardsteer.data.sources import SOURCES
    from rewardsteer.data.template import stored_template
    from rewardsteer.errors import ConfigError
    from rewardsteer.outputs import check_folder

    if source.endswith((".yaml", ".yml")):
        settings = read_yaml(Path(source))
    else:
        SOURCES.get(source)
        settings = {"sources": [{"name": source, "path": path}]}
    config = load_config(DataConfig, settings, overrides or ())
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

        made = load_tokenizer(tokenizer)
    manifest = prepare(config, made, out, overwrite=overwrite)
    show_template(stored_template(manifest.template), tokenizer or "the arithmetic task")
    _describe(manifest.counts, manifest.dropped, manifest.fingerprint)
    typer.echo(f"prepared data: {out}", err=True)


@app.command("stats", cls=Command)
def stats_command(
    folder: Annotated[Path, typer.Argument(help="Folder made by 'rewardsteer data prepare'.")],
) -> None:
    """Rows, drops and token lengths of a prepared folder."""
    import numpy as np

    from rewardsteer.data.store import SPLITS, load_manifest, load_set
    from rewardsteer.reports.tables import print_table

    manifest = load_manifest(folder)
    loading(folder)
    _describe(manifest.counts, manifest.dropped, manifest.fingerprint)
    rows = []
    for split in SPLITS:
        data = load_set(folder, split, "full")
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            lengths = np.array([len(ids) for ids in data[name]])
            rows.append(
                [f"{split} {name.removesuffix('_ids')}", f"{lengths.mean():.1f}",
                 *(f"{value:.0f}" for value in np.percentile(lengths, [50, 95, 100]))]
            )
    print_table("length in tokens", ("", "mean", "median", "95 %", "longest"), rows)


def _describe(counts: dict[str, dict[str, int]], dropped: dict[str, int], mark: str) -> None:
    from rewardsteer.reports.tables import print_table

    print_table(
        f"rows (fingerprint {mark})", ("split", "full", "partial", "sft"),
        [[split, *(str(sets[name]) for name in ("full", "partial", "sft"))]
         for split, sets in counts.items()],
    )
    for reason, count in sorted(dropped.items()):
        typer.echo(f"dropped: {count} {reason}")
