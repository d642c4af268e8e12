"""``rewardsteer score``: rewards of prompt and completion pairs."""

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

_CHUNK = 256  # rows between two writes; sorted by length within


def score_command(
    reward_model: Annotated[Path, typer.Option(help="Reward model folder.")],
    input_: Annotated[
        Path, typer.Option("--input", help="JSONL with 'prompt' and 'completion' a line.")
    ],
    output: Annotated[Path, typer.Option(help="The same rows with a 'reward', in order.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Rows read together.")] = 16,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: as saved.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace the output.")] = False,
) -> None:
    """Add the reward to every prompt and completion; the output appears when all are done."""
    from rewardsteer.cli.devices import parse_device, parse_dtype
    from rewardsteer.errors import OutputError
    from rewardsteer.models.scorer import Scorer
    from rewardsteer.outputs import append_jsonl

    partial = output.with_name(output.name + ".partial")
    if output.exists() and not overwrite:
        raise OutputError(f"The output {output} exists; choose another or pass --overwrite.")
    if partial.exists() and not (resume or overwrite):
        raise OutputError(
            f"{partial} holds rows of an interrupted run; pass --resume to go on with it or "
            "--overwrite to begin anew."
        )
    rows = _read(input_)
    scorer = Scorer.load(reward_model, device=parse_device(device), dtype=parse_dtype(dtype))
    done = _resume(partial, rows) if resume else 0
    if not resume:
        partial.unlink(missing_ok=True)
    for begin in _with_progress(range(done, len(rows), _CHUNK)):
        chunk = rows[begin : begin + _CHUNK]
        rewards = scorer.score(
            [row["prompt"] for row in chunk], [row["completion"] for row in chunk],
            batch_size=batch_size,
        )
        lines = [
            json.dumps(_plain(row) | {"reward": float(reward)}, ensure_ascii=False)
            for row, reward in zip(chunk, rewards, strict=True)
        ]
        append_jsonl(partial, lines)
    partial.replace(output)
    typer.echo(f"{len(rows)} rewards written to {output}", err=True)


def _read(path: Path) -> list[dict[str, Any]]:
    from pydantic import ValidationError

    from rewardsteer.errors import DataError
    from rewardsteer.outputs import read_jsonl
    from rewardsteer.records import Completion

    rows = []
    for number, row in read_jsonl(path):
        absent = [name for name in ("prompt", "completion") if name not in row]
        if absent:
            raise DataError(
                f"{path}, line {number}: expected the fields 'prompt' and 'completion', found "
                f"{', '.join(sorted(row)) or 'none'}."
            )
        try:
            checked = Completion(id="", prompt=row["prompt"], completion=row["completion"])
        except ValidationError as error:
            raise DataError(
                f"{path}, line {number}: 'prompt' must be text or a list of messages with role and "
                f"content, 'completion' text ({error.errors()[0]['msg']})."
            ) from error
        rows.append(row | {"prompt": checked.prompt})
    if not rows:
        raise DataError(f"{path} holds no rows; expected prompt and completion, one object a line.")
    return rows


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return row
    return row | {"prompt": [message.model_dump() for message in prompt]}


def _resume(partial: Path, rows: list[dict[str, Any]]) -> int:
    """Rows already scored, after cutting off a torn last line.

    Raises:
        DataError: they are not the first rows of the input.
    """
    from rewardsteer.errors import DataError
    from rewardsteer.outputs import read_jsonl, repair_jsonl

    if not partial.exists():
        return 0
    done = repair_jsonl(partial)
    for (number, before), row in zip(read_jsonl(partial), rows, strict=False):
        before.pop("reward", None)
        now = _plain(row)
        now.pop("reward", None)
        if before != now:
            raise DataError(
                f"{partial}, line {number} is not line {number} of the input; resume with the same "
                "input, or pass --overwrite to begin anew."
            )
    if done > len(rows):
        raise DataError(f"{partial} holds {done} rows, the input {len(rows)}; pass --overwrite.")
    return done


def _with_progress(steps: range) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("scoring", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, console=Console(stderr=True)))
        yield from progress.track(steps, total=len(steps))
