"""``rewardsteer score``: rewards of completions, and their similarity to a goal state."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rewardsteer.cli.engines import Engine, VllmOptions, vllm_options

if TYPE_CHECKING:
    from rewardsteer.evaluation.scoring import Settings
    from rewardsteer.models.scorer import Scorer
    from rewardsteer.records import Solution


# Fields that plain rows of prompt and completion do not have.
_OF_SOLUTIONS = {"question", "problem", "question_id", "sample", "is_correct", "expected_answer"}


def score_command(
    reward_model: Annotated[Path, typer.Option(help="Reward model folder.")],
    input_: Annotated[
        Path,
        typer.Option(
            "--input",
            help="JSONL with 'prompt' and 'completion' a line; or solutions of maths questions: a "
            "file, or a folder BENCHMARK/output-rs*.jsonl (layouts: docs/scoring.md).",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="File with the same rows and their rewards, in order; for solutions a .jsonl "
            "file, or a folder that gets greedy/BENCHMARK.jsonl and all/BENCHMARK.jsonl."
        ),
    ],
    problems: Annotated[
        list[str] | None,
        typer.Option(
            help="Reference answers of a benchmark, as NAME=FILE: gsm8k, math, gsm-hard, mawps, "
            "asdiv, algebra222, svamp. Labels solutions that have no label."
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            help="Goal states: a file, a folder, or 'none'. Default: the reward model's own, when "
            "it has any."
        ),
    ] = None,
    goal_name: Annotated[
        str | None, typer.Option(help="Which of several goals.")
    ] = None,
    tokens: Annotated[
        bool | None,
        typer.Option(help="Write per-token values; default: for solutions alone."),
    ] = None,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens read together, padding included.")
    ] = 4096,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: as saved.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the output.")] = False,
    engine: Engine = "transformers", vllm_option: VllmOptions = None,
) -> None:
    """Add the reward to every completion; an output appears when all its rows are done."""
    from rewardsteer.cli.devices import parse_device, parse_dtype
    from rewardsteer.cli.progress import progress_bar
    from rewardsteer.evaluation.scoring import Settings, check_output, score_rows
    from rewardsteer.evaluation.vllm_scorer import VllmScorer
    from rewardsteer.models.scorer import Scorer
    from rewardsteer.outputs import check_folder, claim_folder

    vllm = vllm_options(engine, vllm_option or [])
    plain = _plain_rows(input_)
    one_file = plain is not None or (input_.is_file() and output.suffix == ".jsonl")
    if one_file:
        check_output(output, resume=resume, overwrite=overwrite)
        jobs = {output: plain or _solution_rows(input_, problems or [])}
    else:
        check_folder(output, resume=resume, overwrite=overwrite)
        jobs = _solution_jobs(read_labelled(input_, problems or []), output)
    per_token = plain is None if tokens is None else tokens
    if vllm is None:
        scorer = Scorer.load(reward_model, device=parse_device(device), dtype=parse_dtype(dtype))
    else:
        scorer = VllmScorer(reward_model, dtype, tokens=per_token, **vllm)
    state = find_goal(scorer, reward_model, goal, goal_name)
    settings = Settings(state, per_token, batch_tokens)
    if not one_file:
        claim_folder(output, resume=resume, overwrite=overwrite)
        jobs = {place: rows for place, rows in jobs.items() if not (resume and place.exists())}
        _record(output, scorer, settings, resume=resume)
    for place, rows in jobs.items():
        with progress_bar("scoring") as announce:
            report = score_rows(
                scorer, rows, place, settings, resume=resume, overwrite=overwrite,
                announce=announce,
            )
        typer.echo(f"{report.rows} rewards written to {place}", err=True)
        if report.skipped:
            typer.echo(
                f"{report.skipped} of them could not be scored and have no reward; 'skipped' in "
                "the output says why",
                err=True,
            )


def _plain_rows(path: Path) -> list[dict[str, Any]] | None:
    """Rows of prompt and completion; None when the input holds solutions instead."""
    from pydantic import ValidationError

    from rewardsteer.errors import DataError
    from rewardsteer.outputs import read_jsonl
    from rewardsteer.records import Completion

    if path.is_dir() or path.name.endswith(".gz"):
        return None
    rows: list[dict[str, Any]] = []
    for number, row in read_jsonl(path):
        if not rows and row.keys() & _OF_SOLUTIONS:
            return None
        absent = [name for name in ("prompt", "completion") if name not in row]
        if absent:
            raise DataError(
                f"{path}, line {number}: expected the fields 'prompt' and 'completion', found "
                f"{', '.join(sorted(row)) or 'none'}."
            )
        try:
            Completion(id="", prompt=row["prompt"], completion=row["completion"])
        except ValidationError as error:
            raise DataError(
                f"{path}, line {number}: 'prompt' must be text or a list of messages with role and "
                f"content, 'completion' text ({error.errors()[0]['msg']})."
            ) from error
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no rows; expected prompt and completion, one object a line.")
    return rows


def read_labelled(path: Path, problems: list[str]) -> "list[Solution]":
    """Solutions, graded by the problems' answers where they have no label.

    Raises:
        ConfigError: a problem option that is not NAME=FILE.
    """
    from rewardsteer.data.benchmarks import load_problems
    from rewardsteer.data.grading import attach_problems, grade
    from rewardsteer.data.solutions import read_solutions
    from rewardsteer.errors import ConfigError

    known = []
    for item in problems:
        name, equals, file = item.partition("=")
        if not equals:
            raise ConfigError(f"Expected --problems NAME=FILE, got {item!r}.")
        known += load_problems(name, file)
    solutions = [solution for _, solution in read_solutions(path)]
    return [grade(solution) for solution in attach_problems(solutions, known)]


def _solution_rows(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Rows of one file of solutions in our layout; where a row is a solution, with all it had."""
    from rewardsteer.data.sources.files import read_rows

    solutions = read_labelled(path, problems)
    rows = [solution.model_dump(mode="json", exclude_defaults=True) for solution in solutions]
    given = [row for _, row in read_rows("train", str(path), "")]
    if len(given) != len(rows):
        return rows
    return [before | row for before, row in zip(given, rows, strict=True)]


def _solution_jobs(
    solutions: "list[Solution]", output: Path
) -> dict[Path, list[dict[str, Any]]]:
    """Rows by output file."""
    from rewardsteer.data.solutions import GREEDY

    jobs: dict[Path, list[dict[str, Any]]] = {}
    for solution in solutions:
        part = GREEDY if solution.sample == GREEDY else "all"
        # Names as on the hub (openai/gsm8k) would make folders.
        name = solution.benchmark.replace("/", "_") or "solutions"
        place = output / part / f"{name}.jsonl"
        jobs.setdefault(place, []).append(solution.model_dump(mode="json", exclude_defaults=True))
    return jobs


def find_goal(scorer: "Scorer", folder: Path, goal: str | None, name: str | None) -> Any:
    """The goal state that options name: by default the reward model's own, None where there is none
    or where 'none' was asked for.

    Raises:
        ConfigError: a name of none.
        DataError: no such goal.
        MismatchError: it belongs to another reward model.
    """
    from rewardsteer.errors import ConfigError
    from rewardsteer.goals.files import check_goal, load_goal
    from rewardsteer.models.checkpoint import GOAL_STATES

    if goal == "none":
        if name is not None:
            raise ConfigError(f"--goal none and --goal-name {name} contradict each other.")
        return None
    if goal is None and name is None and not (folder / GOAL_STATES).exists():
        return None
    state = load_goal(Path(goal) if goal else folder, name)
    check_goal(state, scorer)
    return state


def _record(output: Path, scorer: "Scorer", settings: "Settings", *, resume: bool) -> None:
    """Write what scores the files of a folder beside them; a resumed run must be of the same."""
    from rewardsteer.errors import DataError
    from rewardsteer.goals.goal_state import GoalState
    from rewardsteer.models.checkpoint import library_versions
    from rewardsteer.outputs import read_json, write_json

    goal, place = settings.goal, output / "run.json"
    run = {
        "fingerprint": scorer.fingerprint,
        "template": scorer.template.model_dump(mode="json"),
        "goal": goal.describe() if isinstance(goal, GoalState) else None,
        "tokens": settings.tokens,
    }
    if resume and place.exists():
        before = read_json(place)
        changed = [name for name, value in run.items() if before.get(name) != value]
        if changed:
            raise DataError(
                f"The scores in {output} were begun with another {', '.join(changed)}; resume with "
                "the same reward model, goal and options, or pass --overwrite to begin anew."
            )
    write_json(place, run | {"reward_model": scorer.name, "versions": library_versions()})
