"""``rewardsteer score``: rewards of completions, and their similarity to a goal state."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rewardsteer.addresses import is_address
from rewardsteer.cli.devices import Device, Dtype
from rewardsteer.cli.engines import RayActors, RayAddress, VllmOptions, vllm_options
from rewardsteer.cli.goal_options import check_goal_options, find_goal
from rewardsteer.cli.kind import KindOption, KindOptions, check_kind, kind_options
from rewardsteer.cli.score_benchmark import score_benchmark
from rewardsteer.cli.starting import check_reward_model, check_writable, counted, loading, say
from rewardsteer.cli.streams import place_name, readable, writable
from rewardsteer.cli.template import TemplateOption, read_template, show_template

if TYPE_CHECKING:
    from rewardsteer.data.rows import Rows
    from rewardsteer.data.template import Template
    from rewardsteer.evaluation.scoring import Described, Engine, Settings

_FILES = (".jsonl", ".parquet")
# File endings that the name of an output folder is unlikely to have.
_OTHER = (".csv", ".tsv", ".json", ".txt", ".gz", ".xlsx", ".arrow")

Problems = Annotated[
    list[str] | None,
    typer.Option(
        help="Reference answers of a benchmark, as NAME=FILE: gsm8k, math, gsm-hard, mawps, asdiv, "
        "algebra222, svamp. Labels solutions that have no label."
    ),
]
Goal = Annotated[
    str | None,
    typer.Option(
        help="Goal states: a file, a folder, or 'none'. Default: the reward model's own, if it "
        "has any."
    ),
]
GoalName = Annotated[str | None, typer.Option(help="Name of the goal, if there are several.")]


def score_command(
    reward_model: Annotated[str, typer.Option(help="Reward model: folder, hub name or address.")],
    output: Annotated[
        Path,
        typer.Option(
            help="File for the same rows with their rewards, in order (.jsonl or .parquet); for "
            "solutions also a folder for greedy/BENCHMARK.jsonl and all/BENCHMARK.jsonl; '-': "
            "standard output."
        ),
    ],
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Rows with 'prompt' and 'completion' (.jsonl, .jsonl.gz, .parquet); or solutions "
            "of maths questions: a file, or a folder BENCHMARK/output-rs*.jsonl (layouts: "
            "docs/scoring.md); '-': JSONL from standard input.",
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=PATH]",
            help="Instead of --input: the rows of a benchmark of 'evaluate benchmark', which reads "
            "the output as --scores.",
        ),
    ] = None,
    problems: Problems = None, goal: Goal = None, goal_name: GoalName = None,
    tokens: Annotated[
        bool | None,
        typer.Option(help="Write per-token values; default: only for solutions."),
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="Also write a value per step of the completion.")
    ] = False,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens per batch, padding included. Default: 1024 on a CPU (more "
            "for small models), 16384 elsewhere."
        ),
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Rows per written shard, which is the most that an interruption loses. "
            "Default: 2048, or 256 for a reward model behind an address."
        ),
    ] = None,
    device: Device = "auto", dtype: Dtype = None,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the output.")] = False,
    engine: Annotated[
        str, typer.Option(help="Engine that runs the model: transformers, vllm or ray.")
    ] = "transformers",
    vllm_option: VllmOptions = None,
    ray_address: RayAddress = None, ray_actors: RayActors = None,
    template: TemplateOption = None, kind: KindOption = None,
    kind_option: KindOptions = None,
) -> None:
    """Add a reward to every row of a file; the output appears when all rows are done."""
    vllm = vllm_options(engine, vllm_option or [], ("transformers", "vllm", "ray"))
    if benchmark is not None or input_ is None:
        score_benchmark(
            _only(benchmark, input_), output, reward_model, device=device, dtype=dtype, kind=kind,
            options=kind_options(kind_option), template=read_template(template), resume=resume,
            overwrite=overwrite,
            others={"--problems": problems, "--goal": goal, "--goal-name": goal_name,
                    "--tokens": tokens, "--steps": steps, "--engine": engine != "transformers"},
        )
        return
    with readable(input_) as source, writable(output) as place:
        _score_all(
            source, place, reward_model, problems or [], vllm, goal=goal, goal_name=goal_name,
            tokens=tokens, steps=steps, batch_tokens=batch_tokens,
            shard_rows=shard_rows or (256 if is_address(reward_model) else 2048),
            device=device, dtype=dtype, resume=resume, overwrite=overwrite, engine=engine,
            ray_address=ray_address, ray_actors=ray_actors, written=read_template(template),
            kind=kind, options=kind_options(kind_option),
        )


def _only(benchmark: str | None, input_: Path | None) -> str:
    from rewardsteer.errors import ConfigError

    if benchmark is None or input_ is not None:
        raise ConfigError("Give either --input (rows to score) or --benchmark (a name).")
    return benchmark


def _score_all(
    input_: Path, output: Path, reward_model: str, problems: list[str],
    vllm: dict[str, Any] | None, *, goal: str | None, goal_name: str | None, tokens: bool | None,
    steps: bool, batch_tokens: int | None, shard_rows: int, device: str, dtype: str | None,
    resume: bool, overwrite: bool, engine: str, ray_address: str | None, ray_actors: int | None,
    written: "Template | None", kind: str | None, options: dict[str, Any],
) -> None:
    from rewardsteer.evaluation.score_inputs import plain_rows, solution_rows
    from rewardsteer.evaluation.shards import check_output
    from rewardsteer.outputs import check_folder, claim_folder

    _check_engine(engine, kind, options, steps=steps)
    check_reward_model(reward_model)
    rows = plain_rows(input_, shard_rows)
    _check_ending(output, single=rows is not None)
    one_file = rows is not None or (input_.is_file() and output.suffix in _FILES)
    (check_output if one_file else check_folder)(output, resume=resume, overwrite=overwrite)
    check_writable(output)
    check_goal_options(goal, goal_name)
    per_token = rows is None if tokens is None else tokens
    loading(reward_model)

    from rewardsteer.evaluation.scoring import Settings
    from rewardsteer.evaluation.vllm_scorer import VllmScorer

    scorer: Any
    if vllm is not None:
        scorer = VllmScorer(Path(reward_model), dtype, tokens=per_token, template=written, **vllm)
    else:
        scorer = _scorer(
            engine, reward_model, device, dtype, written, tokens=per_token, kind=kind, **options
        )
    show_template(scorer.template, reward_model)
    own = find_goal(scorer, Path(reward_model), goal, goal_name)
    settings = Settings(own, per_token, batch_tokens, steps)
    if not one_file:
        claim_folder(output, resume=resume, overwrite=overwrite)
        _record(output, scorer, settings, resume=resume)

    def engine_of(found: "Rows") -> "Engine | None":
        if engine != "ray":
            return None
        from rewardsteer.evaluation.ray_scoring import on_ray

        return on_ray(
            Path(reward_model), found, settings, device=device, dtype=dtype, template=written,
            address=ray_address, actors=ray_actors,
        )

    how = {"resume": resume, "overwrite": overwrite}
    if rows is not None:
        _score(scorer, rows, output, settings, engine_of(rows), **how)
        return
    with solution_rows(input_, problems, output, shard_rows) as jobs:
        for place, found in jobs.items():
            _score(scorer, found, place, settings, engine_of(found), **how)


def _check_ending(output: Path, *, single: bool) -> None:
    """Refuse a file name whose ending does not match the format that would be written."""
    from rewardsteer.errors import OutputError

    if output.suffix not in _FILES and (single or output.suffix in _OTHER):
        raise OutputError(
            f"The output {output} is written as JSON lines or Parquet; end its name in .jsonl or "
            ".parquet."
        )


def _score(
    scorer: "Described", rows: "Rows", output: Path, settings: "Settings",
    engine: "Engine | None", *, resume: bool, overwrite: bool,
) -> None:
    from rewardsteer.evaluation.scoring import score_rows
    from rewardsteer.progress import progress_bar

    with progress_bar("scoring") as announce:
        report = score_rows(
            scorer, rows, output, settings, resume=resume, overwrite=overwrite, engine=engine,
            announce=announce,
        )
    rewards = counted(report.rows - report.skipped, "reward")
    say(f"{rewards} written to {place_name(output)}")
    if report.skipped:
        say(f"{counted(report.skipped, 'row')} without a reward; 'skipped' in the output says why")


def _scorer(
    engine: str, folder: str, device: str, dtype: str | None, template: "Template | None",
    *, tokens: bool, **options: Any,
) -> "Described":
    """The reward model; for Ray, whose actors load it, only its description."""
    from rewardsteer.devices import parse_dtype

    if engine == "ray":
        from rewardsteer.decoding.folder_scorer import FolderScorer

        return FolderScorer(Path(folder), template)
    from rewardsteer.models.kinds import load_scorer
    from rewardsteer.models.text_scorer import require_tokens

    scorer = load_scorer(
        folder, device=device, dtype=parse_dtype(dtype), template=template, **options
    )
    return require_tokens(scorer, "values per token (--tokens)") if tokens else scorer


def _check_engine(engine: str, kind: str | None, options: dict[str, Any], *, steps: bool) -> None:
    from rewardsteer.errors import ConfigError

    check_kind(kind)
    if steps and engine != "transformers":
        raise ConfigError("--steps needs --engine transformers; leave out --engine.")
    if (kind is not None or options) and engine != "transformers":
        raise ConfigError(
            f"The engine {engine} loads folders of rewardsteer and one-label classifiers alone; "
            "leave out --kind and --kind-option, or take --engine transformers."
        )


def _record(output: Path, scorer: "Described", settings: "Settings", *, resume: bool) -> None:
    """Write ``run.json`` with the reward model and settings; refuse to resume with other ones."""
    from rewardsteer.errors import DataError
    from rewardsteer.evaluation.scoring import describe
    from rewardsteer.models.checkpoint import library_versions
    from rewardsteer.outputs import read_json, write_json

    place, run = output / "run.json", describe(scorer, settings)
    if resume and place.exists():
        before = read_json(place)
        changed = [name for name, value in run.items() if before.get(name) != value]
        if changed:
            raise DataError(
                f"The scores in {output} were begun with another {', '.join(changed)}; resume with "
                "the same reward model, goal and options, or pass --overwrite to start over."
            )
    write_json(place, run | {"reward_model": scorer.name, "versions": library_versions()})
