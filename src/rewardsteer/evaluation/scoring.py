"""Rewards of many completions to a file: in order, any size, resumable.

Rows are appended to ``OUTPUT.partial`` chunk by chunk; ``OUTPUT`` appears when all are done.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rewardsteer.errors import DataError, OutputError
from rewardsteer.models.scorer import Goal, Scorer, TokenScores
from rewardsteer.outputs import append_jsonl, read_jsonl, repair_jsonl
from rewardsteer.records import Message

_CHUNK = 2048  # rows between two writes; sorted by length within
_DIGITS = 6  # of token values in files
ADDED = (
    "reward", "token_rewards", "token_similarities", "token_count", "prompt_tokens", "skipped",
)

Row = dict[str, Any]


class Settings(NamedTuple):
    """How to score.

    ``goal`` gives similarities; ``tokens`` writes per-token values too; ``batch_tokens`` is how
    many tokens are read together, padding included.
    """

    goal: Goal | None = None
    tokens: bool = False
    batch_tokens: int = 4096


class Report(NamedTuple):
    """How many rows were written, and how many of them could not be scored."""

    rows: int
    skipped: int


def score_rows(
    scorer: Scorer, rows: Sequence[Row], output: Path, settings: Settings, *,
    resume: bool = False, overwrite: bool = False,
    announce: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Write every row with what the reward model says of its ``prompt`` and ``completion``.

    A row that the model cannot read whole is never cut: it keeps ``reward: null`` and says why
    under ``skipped``.

    Args:
        scorer: the reward model.
        rows: JSON-ready, in order.
        output: JSONL file.
        settings: see `Settings`.
        resume: go on with an interrupted run of the same rows.
        overwrite: replace what is there.
        announce: called with rows done and rows in all.

    Raises:
        OutputError: the output exists, or an interrupted run does, and no flag was given.
        DataError: the interrupted run had other rows.
        NonFiniteError: a reward is NaN or infinite.
    """
    partial = check_output(output, resume=resume, overwrite=overwrite)
    if not resume:
        partial.unlink(missing_ok=True)
    done, skipped = _take_up(partial, rows) if resume else (0, 0)
    announce(done, len(rows))
    for begin in range(done, len(rows), _CHUNK):
        chunk = rows[begin : begin + _CHUNK]
        lines = []
        for row in _score(scorer, chunk, settings):
            skipped += "skipped" in row
            lines.append(json.dumps(row, ensure_ascii=False))
        append_jsonl(partial, lines)
        announce(begin + len(chunk), len(rows))
    partial.replace(output)
    return Report(len(rows), skipped)


def check_output(output: Path, *, resume: bool, overwrite: bool) -> Path:
    """The partial file of an output that may be written now; raises `OutputError` otherwise."""
    partial = output.with_name(output.name + ".partial")
    if output.exists() and not overwrite:
        raise OutputError(f"The output {output} exists; choose another or pass --overwrite.")
    if partial.exists() and not (resume or overwrite):
        raise OutputError(
            f"{partial} holds rows of an interrupted run; pass --resume to go on with it or "
            "--overwrite to begin anew."
        )
    return partial


def _score(scorer: Scorer, rows: Sequence[Row], settings: Settings) -> Iterator[Row]:
    """The rows with their values, one after the other: a list of per-token numbers is far larger in
    Python than what it is made from."""
    prompts, responses = scorer.encode(
        [_prompt(row["prompt"]) for row in rows], [row["completion"] for row in rows]
    )
    limit = scorer.position_limit
    reasons = [
        _obstacle(len(p) + len(r), len(r), limit) for p, r in zip(prompts, responses, strict=True)
    ]
    readable = [index for index, reason in enumerate(reasons) if not reason]
    scores = scorer.token_scores_ids(
        [prompts[index] for index in readable], [responses[index] for index in readable],
        batch_size=None, batch_tokens=settings.batch_tokens, goal=settings.goal,
    )
    by_row = dict(zip(readable, scores, strict=True))
    for index, row in enumerate(rows):
        kept = {name: value for name, value in row.items() if name not in ADDED}
        if index in by_row:
            yield kept | _values(by_row[index], settings)
        else:
            yield kept | {"reward": None, "skipped": reasons[index]}


def _obstacle(length: int, response: int, limit: int | None) -> str:
    if response == 0:
        return "the completion holds no token"
    if limit is not None and length > limit:
        return f"{length} tokens, but the reward model reads at most {limit}"
    return ""


def _values(scores: TokenScores, settings: Settings) -> Row:
    values: Row = {"reward": float(scores.rewards[-1])}
    if settings.tokens:
        values["token_count"] = len(scores.rewards)
        values["prompt_tokens"] = scores.prompt_tokens
        values["token_rewards"] = scores.rewards.round(_DIGITS).tolist()
        if scores.similarities is not None:
            values["token_similarities"] = scores.similarities.round(_DIGITS).tolist()
    return values


def _prompt(prompt: Any) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [Message.model_validate(message) for message in prompt]


def _take_up(partial: Path, rows: Sequence[Row]) -> tuple[int, int]:
    """Rows already scored and those skipped, after cutting off a torn last line."""
    done, skipped = repair_jsonl(partial), 0
    if done > len(rows):
        raise DataError(f"{partial} holds {done} rows, the input {len(rows)}; pass --overwrite.")
    if done == 0:
        return 0, 0
    for (number, before), row in zip(read_jsonl(partial), rows, strict=False):
        skipped += "skipped" in before
        theirs, ours = (
            {name: value for name, value in one.items() if name not in ADDED}
            for one in (before, row)
        )
        if theirs != ours:
            raise DataError(
                f"{partial}, line {number} is not line {number} of the input; resume with the same "
                "input, or pass --overwrite to begin anew."
            )
    return done, skipped
