"""Figures of a benchmark by its name, from a model's scores of the items or recorded scores."""

import hashlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rewardsteer.addresses import WORKERS
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.evaluation.data_notes import item_notes
from rewardsteer.evaluation.reward_benchmarks.base import Item, RewardBenchmark
from rewardsteer.evaluation.reward_benchmarks.loading import load_benchmark
from rewardsteer.evaluation.reward_benchmarks.measuring import controls, measure, table
from rewardsteer.evaluation.reward_benchmarks.resampling import Resampled
from rewardsteer.models.pair_scorer import PairScorer
from rewardsteer.models.text_scorer import NUMBERED_ROW, TextScorer
from rewardsteer.outputs import append_jsonl, read_jsonl, repair_jsonl
from rewardsteer.records import Prompt

logger = logging.getLogger(__name__)

Announce = Callable[[int, int], None]
# Items scored between two writes to the file of scores.
_TOGETHER = 64
# The same in batches, where every item is one text: as many requests as run at a time.
_BATCHES = WORKERS


class Scored(NamedTuple):
    """The items that a reward model could score, with their scores ``[C]`` each, and for each of
    the others the reason."""

    items: list[Item]
    scores: list[np.ndarray]
    reasons: list[str]


def score_items(
    scorer: Any, benchmark: RewardBenchmark, items: Sequence[Item], *, batch_size: int = 16,
    file: Path | None = None, announce: Announce = lambda done, total: None,
) -> Scored:
    """Scores of each item by a reward model. An item with a text that the model cannot score (it is
    too long, or a server refuses it) is left out: nothing is truncated.

    Args:
        scorer: a `rewardsteer.models.text_scorer.TextScorer`. The scores that a
            `rewardsteer.models.pair_scorer.PairScorer` gives two responses are the probabilities
            that each is the better one.
        benchmark: the benchmark, which defines whether completions are steps.
        batch_size: texts scored together.
        file: JSONL that scores are appended to, one line per item; items in it are not scored
            again.
        announce: called with the number of items done and the total.

    Raises:
        DataError: no item can be scored, or a file of other items.
        MismatchError: the model compares two responses, and an item does not consist of two.
    """
    if isinstance(scorer, PairScorer):
        _check_pairs(scorer, benchmark, items)
    known, errors = _in_parts(
        items, lambda part: _each(scorer, benchmark, part, batch_size), _TOGETHER, file, announce
    )
    reasons = [
        NUMBERED_ROW.sub(f"The item {name!r}", str(error)) for name, error in errors.items()
    ]
    scored = [item for item in items if item.id in known]
    if not scored:
        raise DataError(f"No item could be scored. {reasons[0]}")
    return Scored(scored, _in_order(known, scored, file), reasons)


def score_texts(
    scorer: TextScorer, prompts: Sequence[Prompt], completions: Sequence[str], *,
    batch_size: int = 16, file: Path | None = None,
    announce: Announce = lambda done, total: None,
) -> list[float | DataError]:
    """Rewards of N completions; in place of one that cannot be scored, the reason.

    Args:
        scorer: of any kind.
        prompts, completions: N each.
        batch_size: texts scored together.
        file: JSONL that rewards are appended to; those of the same model, texts and positions in it
            are not computed again.
        announce: called with the number of completions done and the total.
    """
    # Rewards of another model or other texts are no rewards of these.
    model, items = scorer.provenance(), []
    for number, (prompt, text) in enumerate(zip(prompts, completions, strict=True)):
        written = json.dumps([model, prompt, text], sort_keys=True, default=str)
        digest = hashlib.sha256(written.encode()).hexdigest()[:16]
        items.append(Item(f"{number}-{digest}", prompt, (text,), "", ""))
    known, errors = _in_parts(
        items, lambda part: _of_texts(scorer, part, batch_size), _BATCHES * batch_size, file,
        announce,
    )
    return [errors.get(item.id) or float(known[item.id][0]) for item in items]


def _in_parts(
    items: Sequence[Item], score: Callable[[Sequence[Item]], Sequence[np.ndarray | DataError]],
    together: int, file: Path | None, announce: Announce,
) -> tuple[dict[str, np.ndarray], dict[str, DataError]]:
    """Scores by item, those in the file and new ones, which are appended to it after ``together``
    items; and the errors of items without scores."""
    known: dict[str, np.ndarray] = {}
    errors: dict[str, DataError] = {}
    if file is not None and repair_jsonl(file):
        known = _recorded(file)
    left = [item for item in items if item.id not in known]
    for start in range(0, len(left), together):
        announce(len(items) - len(left) + start, len(items))
        part = left[start : start + together]
        new: dict[str, np.ndarray] = {}
        for item, own in zip(part, score(part), strict=True):
            if isinstance(own, DataError):
                errors[item.id] = own
            else:
                new[item.id] = own
        known |= new
        if file is not None:
            append_jsonl(file, [
                json.dumps({"id": name, "scores": own.tolist()}, ensure_ascii=False)
                for name, own in new.items()
            ])
    announce(len(items), len(items))
    return known, errors


def evaluate_benchmark(
    scorer: Any, name: str, path: str | Path | None = None, *, batch_size: int = 16,
    file: Path | None = None, announce: Announce = lambda done, total: None, **options: Any,
) -> dict[str, dict[str, float]]:
    """A reward model's figures on a benchmark: one row per figure with ``score``, its 95 % interval
    ``low`` and ``high`` over the number of ``questions``, and the figures of controls.

    See `load_benchmark` and `score_items` for the arguments and errors.
    """
    benchmark, items = load_benchmark(name, path, **options)
    scored = score_items(
        scorer, benchmark, items, batch_size=batch_size, file=file, announce=announce
    )
    for sentence in _left_out(scored):
        logger.warning("%s: %s.", name, sentence)
    return table(*measured_together(benchmark, {"": scored})[""])


def measured_together(
    benchmark: RewardBenchmark, models: Mapping[str, Scored]
) -> dict[str, tuple[Resampled, dict[str, dict[str, float]]]]:
    """By model, figures with the bootstrap and the controls, over the items that all models could
    score.

    Raises:
        DataError: there is no such item.
    """
    common = set.intersection(*({item.id for item in one.items} for one in models.values()))
    if not common:
        raise DataError("The reward models could score no item in common.")
    found = {}
    for name, one in models.items():
        kept = [place for place, item in enumerate(one.items) if item.id in common]
        items, scores = [one.items[at] for at in kept], [one.scores[at] for at in kept]
        found[name] = measure(benchmark, items, scores), controls(benchmark, items)
    return found


def notes_of(scored: Scored) -> list[str]:
    """Sentences on unusual data, without full stops."""
    return item_notes(scored.items, scored.scores) + _left_out(scored)


def _left_out(scored: Scored) -> list[str]:
    count = len(scored.reasons)
    return [
        f"{count} of {count + len(scored.items)} items could not be scored and are left out; one "
        f"reason: {scored.reasons[0].rstrip('.')}"
    ] if count else []


def recorded_scores(file: Path, items: Sequence[Item]) -> tuple[list[Item], list[np.ndarray]]:
    """Scores from any program, one JSON line per item: ``{"id": …, "scores": [C numbers]}``.

    Returns:
        the items with scores in the file, and their scores.

    Raises:
        DataError: a malformed line, no item of the benchmark, or a wrong number of scores.
    """
    known = _recorded(file)
    scored = [item for item in items if item.id in known]
    if not scored:
        raise DataError(
            f"Expected ids of the benchmark (such as {items[0].id!r}) in {file}, found none."
        )
    return scored, _in_order(known, scored, file)


def _each(
    scorer: Any, benchmark: RewardBenchmark, items: Sequence[Item], batch_size: int
) -> list[np.ndarray | DataError]:
    """Scores of each item, or the reason why it has none."""
    if not (benchmark.steps or isinstance(scorer, PairScorer)):
        return _of_texts(scorer, items, batch_size)
    try:
        return [*_score(scorer, benchmark, items, batch_size)]
    except DataError as error:
        if len(items) == 1:
            return [error]
    half = len(items) // 2
    return [
        one for part in (items[:half], items[half:])
        for one in _each(scorer, benchmark, part, batch_size)
    ]


def _of_texts(
    scorer: TextScorer, items: Sequence[Item], batch_size: int
) -> list[np.ndarray | DataError]:
    prompts = [item.prompt for item in items for _ in item.completions]
    completions = [one for item in items for one in item.completions]
    values = iter(scorer.score_each(prompts, completions, batch_size=batch_size))
    return [_of_item(list(itertools.islice(values, len(item.completions)))) for item in items]


def _of_item(values: Sequence[float | DataError]) -> np.ndarray | DataError:
    error = next((one for one in values if isinstance(one, DataError)), None)
    return np.array(values, dtype=float) if error is None else error


def _score(
    scorer: Any, benchmark: RewardBenchmark, items: Sequence[Item], batch_size: int
) -> list[np.ndarray]:
    if benchmark.steps:
        steps = [list(item.completions) for item in items]
        return list(scorer.step_scores([item.prompt for item in items], steps,
                                       batch_size=batch_size))
    first, second = zip(*(item.completions for item in items), strict=True)
    shares = scorer.preferences([item.prompt for item in items], first, second,
                                batch_size=batch_size)
    return list(np.stack([shares, 1 - shares], axis=1))


def _check_pairs(scorer: PairScorer, benchmark: RewardBenchmark, items: Sequence[Item]) -> None:
    counts = {len(item.completions) for item in items} - {2}
    if not benchmark.steps and not counts:
        return
    what = "steps" if benchmark.steps else f"{max(counts)} responses at once"
    raise MismatchError(
        f"Expected a benchmark of pairs for {scorer.name} ({scorer.kind}), which compares two "
        f"responses; {type(benchmark).__name__} asks about {what}. Take rewardbench, judgebench or "
        "another benchmark of pairs, or a reward model."
    )


def _recorded(file: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for number, row in read_jsonl(file):
        name, scores = row.get("id"), row.get("scores")
        numbers = isinstance(scores, list) and all(
            isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
            for one in scores
        )
        if not isinstance(name, str) or not numbers:
            raise DataError(
                f"{file}, line {number}: expected an id and a list of finite numbers in scores."
            )
        found[name] = np.array(scores, dtype=float)
    return found


def _in_order(
    known: dict[str, np.ndarray], items: Sequence[Item], file: Path | None
) -> list[np.ndarray]:
    for item in items:
        if len(known[item.id]) != len(item.completions):
            raise DataError(
                f"{file}: expected {len(item.completions)} scores of {item.id!r}, got "
                f"{len(known[item.id])}."
            )
    return [known[item.id] for item in items]
