"""Write rewards of many completions to a file, in order and resumable shard by shard."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rewardsteer.data.rows import SHARD_ROWS, ListedRows, Rows, arrow_schema
from rewardsteer.data.template import Template
from rewardsteer.errors import DataError
from rewardsteer.evaluation.shards import Row, Shards
from rewardsteer.evaluation.step_values import pairs_of, tools_of, with_step_values
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.prefix_scorer import Goal
from rewardsteer.models.scorer import Scorer, TokenScores
from rewardsteer.models.text_scorer import NUMBERED_ROW, ROWS_WITH_TOOLS, TextScorer, require_tokens

_DIGITS = 6  # of token values in files
ADDED = (
    "reward", "token_rewards", "token_similarities", "token_count", "prompt_tokens",
    "step_rewards", "skipped",
)


class Settings(NamedTuple):
    """How to score.

    ``goal``: a goal state, for similarities; ``tokens``: also write values of tokens;
    ``batch_tokens``: number of tokens scored together, padding included; None: as many as suit the
    device; ``steps``: also write values of steps.
    """

    goal: Goal | None = None
    tokens: bool = False
    batch_tokens: int | None = None
    steps: bool = False


class Report(NamedTuple):
    """Number of rows written, and number of those that could not be scored."""

    rows: int
    skipped: int


class Described(Protocol):
    """A description of the reward model that gives the values."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Of the weights; "" when unknown."""

    @property
    def template(self) -> Template | None:
        """The template of texts; None where the kind of reward model has its own format."""


# Makes the shards with the given indices and yields the index of each finished one.
Engine = Callable[[Shards, Sequence[int]], Iterator[int]]


def score_rows(
    scorer: Described, rows: Rows | Sequence[Row], output: Path, settings: Settings, *,
    resume: bool = False, overwrite: bool = False, engine: Engine | None = None,
    announce: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Write every row with the reward of its ``prompt`` and ``completion``.

    A row longer than the model's maximum is never truncated: it gets ``reward: null`` and a reason
    under ``skipped``.

    Args:
        scorer: the reward model, a `TextScorer` where no engine is given.
        rows: JSON-ready, in order.
        output: JSONL or Parquet file.
        settings: see `Settings`.
        resume: go on with an interrupted run of the same rows.
        overwrite: replace an existing output.
        engine: computes the shards, possibly elsewhere; None: in this process, in order.
        announce: called with the number of rows done and the total.

    Raises:
        OutputError: the output or an interrupted run of it exists and no flag was given; or the
            disk is full.
        DataError: the interrupted run had other rows, weights or settings.
        NonFiniteError: a reward is NaN or infinite.
    """
    if isinstance(rows, Sequence):
        rows = ListedRows(rows, SHARD_ROWS)
    schema = parquet_schema(rows, settings) if output.suffix == ".parquet" else None
    shards = Shards(
        output, _task(scorer, rows, settings), count=rows.count, step=rows.step, resume=resume,
        overwrite=overwrite,
    )
    missing = shards.missing()
    done = rows.count - sum(shards.rows_in(shard) for shard in missing)
    announce(done, rows.count)
    if engine is None:
        assert isinstance(scorer, TextScorer), "without an engine the model is here"
        engine = here(scorer, rows, settings)
    for shard in engine(shards, missing):
        done += shards.rows_in(shard)
        announce(done, rows.count)
    return Report(rows.count, sum("skipped" in row for row in shards.finish(schema)))


def here(scorer: TextScorer, rows: Rows, settings: Settings) -> Engine:
    """An engine that scores in this process."""
    def run(shards: Shards, missing: Sequence[int]) -> Iterator[int]:
        for shard in missing:
            scored = score_shard(scorer, rows.read(shard), settings, shard * rows.step)
            shards.write(shard, with_step_values(scorer, scored) if settings.steps else scored)
            yield shard

    return run


def score_shard(
    scorer: TextScorer, rows: Sequence[Row], settings: Settings, first_row: int = 0
) -> Iterator[Row]:
    """Yield the rows with their values, one by one, since lists of per-token numbers are far larger
    than the arrays that they are made from.

    Args:
        settings: see `Settings`.
        first_row: number of rows before this shard, for messages.
    """
    if settings.tokens or settings.goal is not None:
        scorer = require_tokens(scorer, "values per token and similarities")
    if not isinstance(scorer, Scorer):
        yield from _of_texts(scorer, rows)
        return
    prompts, responses = scorer.encode(*pairs_of(rows), tools=tools_of(rows))
    limit = scorer.position_limit
    reasons = [
        _obstacle(len(p) + len(r), len(r), limit) for p, r in zip(prompts, responses, strict=True)
    ]
    readable = [index for index, reason in enumerate(reasons) if not reason]
    values = _values(
        scorer, [prompts[index] for index in readable], [responses[index] for index in readable],
        settings, [first_row + index + 1 for index in readable],
    )
    for row, reason in zip(rows, reasons, strict=True):
        yield _given(row) | (next(values) if not reason else {"reward": None, "skipped": reason})


def _given(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ADDED}


def _of_texts(scorer: TextScorer, rows: Sequence[Row]) -> Iterator[Row]:
    """The rows with rewards of a model that scores texts alone."""
    if any(tools_of(rows)):
        require_tokens(scorer, ROWS_WITH_TOOLS)
    for row, found in zip(rows, scorer.score_each(*pairs_of(rows)), strict=True):
        yield _given(row) | (
            {"reward": None, "skipped": NUMBERED_ROW.sub("This row", str(found))}
            if isinstance(found, DataError) else {"reward": found}
        )


def _values(
    scorer: Scorer, prompts: list[list[int]], responses: list[list[int]], settings: Settings,
    numbers: list[int],
) -> Iterator[Row]:
    how: dict[str, Any] = {
        "batch_size": None, "batch_tokens": settings.batch_tokens, "numbers": numbers
    }
    if not settings.tokens:
        for reward in scorer.score_ids(prompts, responses, **how):
            yield {"reward": float(reward)}
        return
    for scores in scorer.token_scores_ids(prompts, responses, goal=settings.goal, **how):
        yield _token_values(scores)


def _token_values(scores: TokenScores) -> Row:
    values: Row = {
        "reward": float(scores.rewards[-1]), "token_count": len(scores.rewards),
        "prompt_tokens": scores.prompt_tokens,
        "token_rewards": scores.rewards.round(_DIGITS).tolist(),
    }
    if scores.similarities is not None:
        values["token_similarities"] = scores.similarities.round(_DIGITS).tolist()
    return values


def _obstacle(length: int, response: int, limit: int | None) -> str:
    if response == 0:
        return "the completion holds no token"
    if limit is not None and length > limit:
        return f"{length} tokens, but the reward model takes at most {limit}"
    return ""


def _task(scorer: Described, rows: Rows, settings: Settings) -> dict[str, Any]:
    """All that determines the values; a run with another task cannot be resumed."""
    return {"input": rows.digest} | describe(scorer, settings)


def describe(scorer: Described, settings: Settings) -> dict[str, Any]:
    """A description of the model, template and goal that give the values."""
    goal, template = settings.goal, scorer.template
    # Rewards of token ids depend on weights and template alone.
    found: dict[str, Any] = {}
    if isinstance(scorer, TextScorer) and not isinstance(scorer, Scorer):
        found["provenance"] = scorer.provenance()
    if settings.steps:
        found["steps"] = True
    return found | {
        "fingerprint": scorer.fingerprint,
        "template": None if template is None else template.model_dump(mode="json"),
        "goal": goal.describe() if isinstance(goal, GoalState) else None,
        "tokens": settings.tokens,
    }


def parquet_schema(rows: Rows, settings: Settings) -> Any:
    """The Arrow schema of the output; raises `DataError` where no schema fits the rows."""
    import pyarrow as pa

    values = [("reward", pa.float64())]
    if settings.tokens:
        values += [("token_count", pa.int64()), ("prompt_tokens", pa.int64())]
        values += [("token_rewards", pa.list_(pa.float64()))]
    if settings.tokens and settings.goal is not None:
        values += [("token_similarities", pa.list_(pa.float64()))]
    if settings.steps:
        values += [("step_rewards", pa.list_(pa.float64()))]
    given = arrow_schema(rows, ADDED)
    return pa.schema([*given, *(pa.field(*value) for value in values), ("skipped", pa.string())])
