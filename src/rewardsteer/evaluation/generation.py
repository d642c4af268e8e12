"""Methods × prompts: generate, judge by a reward model, summarise.

    OUT/METHOD.jsonl    one `EvalRecord` a line, appended batch by batch; resumable
    OUT/summary.json    a record of figures per method, in order; the first is the baseline
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import DataError
from rewardsteer.evaluation.metrics import distinct_n, pairwise_rouge_l
from rewardsteer.evaluation.statistics import paired_difference, standard_error
from rewardsteer.goals.goal_state import GoalState
from rewardsteer.models.compatibility import check_head, check_vocabulary
from rewardsteer.models.scorer import Scorer
from rewardsteer.outputs import append_jsonl, read_jsonl, repair_jsonl, write_json
from rewardsteer.records import Cost, EvalRecord, Generation

Metric = Callable[[Generation], float]


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        label: name in tables; also the file's name.
        config: how to decode.
        scorer: the reward model that guides; None for plain sampling.
        goal: the goal state that guides, for methods that want one.
    """

    label: str
    config: DecodingConfig
    scorer: Scorer | None = None
    goal: GoalState | None = None


@dataclass
class Judge:
    """What is asked of every generation.

    Attributes:
        scorer: gives the ``reward``.
        metrics: further figures by name.
    """

    scorer: Scorer
    metrics: Mapping[str, Metric] = field(default_factory=dict)


def run_entry(
    entry: Entry, policy: Any, tokenizer: Any, requests: Sequence[Request], judge: Judge,
    place: Path, *, template: Template | None = None,
) -> list[EvalRecord]:
    """Generate and judge what is missing in ``place`` and return all records, in prompt order.

    Raises:
        DataError: ``place`` holds records of other prompts.
    """
    done = read_records(place) if place.exists() else {}
    by_id = {request.id: request for request in requests}
    foreign = done.keys() - by_id.keys()
    if foreign:
        raise DataError(
            f"{place} holds answers to other prompts (for example {min(foreign)!r}); resume with "
            "the same prompts, or choose another output."
        )
    missing = [request for request in requests if request.id not in done]
    method = build_method(entry.config, entry.scorer, entry.goal)
    generations = generate(
        policy, tokenizer, missing, method, entry.config, template=template, label=entry.label
    ) if missing else iter(())
    for batch in _batches(generations, entry.config.batch_size):
        rewards = _judge(batch, by_id, judge.scorer, entry.config.batch_size)
        records = [
            EvalRecord(
                generation=generation,
                metrics={"reward": float(reward)}
                | {name: float(metric(generation)) for name, metric in judge.metrics.items()},
            )
            for generation, reward in zip(batch, rewards, strict=True)
        ]
        append_jsonl(place, [record.model_dump_json() for record in records])
        done |= {record.generation.id: record for record in records}
    return [done[request.id] for request in requests]


def _judge(
    batch: list[Generation], requests: Mapping[str, Request], scorer: Scorer, batch_size: int
) -> Any:
    """Rewards ``[N]``. Prompts given as ids are already rendered and are scored as ids, in the
    judge's own vocabulary; others are rendered with the judge's template."""
    if all(requests[generation.id].prompt_ids is not None for generation in batch):
        return scorer.score_ids(
            [requests[generation.id].prompt_ids or [] for generation in batch],
            [scorer.close_response(generation.token_ids) for generation in batch],
            batch_size=batch_size,
        )
    return scorer.score(
        [requests[generation.id].prompt for generation in batch],
        [generation.completion for generation in batch], batch_size=batch_size,
    )


def compare(
    entries: Sequence[Entry], policy: Any, tokenizer: Any, requests: Sequence[Request],
    judge: Judge, out: Path, *, template: Template | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[str, float]]:
    """Run every entry on the same prompts and write ``summary.json``; returns its content."""
    check_head("the judge", judge.scorer, "scalar")
    check_vocabulary(tokenizer, judge.scorer.tokenizer)
    labels = [entry.label for entry in entries]
    if len(set(labels)) != len(labels):
        raise DataError(f"The labels of compared methods must differ, got {', '.join(labels)}.")
    results: dict[str, list[EvalRecord]] = {}
    for entry in entries:
        announce(entry.label)
        place = out / f"{_file_name(entry.label)}.jsonl"
        results[entry.label] = run_entry(
            entry, policy, tokenizer, requests, judge, place, template=template
        )
    baseline = results[labels[0]]
    summary = {label: summarise(records, baseline) for label, records in results.items()}
    write_json(out / "summary.json", {"methods": summary})
    return summary


def summarise(records: Sequence[EvalRecord], baseline: Sequence[EvalRecord]) -> dict[str, float]:
    """Figures of one method; ``*_per_token`` are sums over all generations, divided."""
    figures: dict[str, float] = {"count": len(records)}
    for name in records[0].metrics:
        values = [record.metrics[name] for record in records]
        difference = paired_difference(values, [record.metrics[name] for record in baseline])
        figures |= {
            name: float(np.mean(values)),
            f"{name}_stderr": standard_error(values),
            f"{name}_gain": difference.value,
            f"{name}_gain_low": difference.low,
            f"{name}_gain_high": difference.high,
        }
    texts = [_words(record.generation) for record in records]
    figures |= {f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)}
    figures["rouge_l"] = pairwise_rouge_l(texts)
    total = sum((record.generation.cost for record in records), Cost())
    tokens = max(total.new_tokens, 1)
    figures["length"] = total.new_tokens / len(records)
    for name in ("lm_calls", "rm_calls", "lm_forwards", "rm_forwards", "lm_tokens", "rm_tokens"):
        figures[f"{name}_per_token"] = getattr(total, name) / tokens
    figures["seconds_per_token"] = total.seconds / tokens
    # JSON has no NaN; a figure that cannot be given is left out.
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def read_records(place: Path) -> dict[str, EvalRecord]:
    """Records by prompt id, after cutting off a torn last line."""
    repair_jsonl(place)
    try:
        records = [EvalRecord.model_validate(row) for _, row in read_jsonl(place)]
    except ValueError as error:
        raise DataError(f"{place} holds a line that is no evaluation record: {error}") from error
    return {record.generation.id: record for record in records}


def _batches(generations: Iterator[Generation], size: int) -> Iterator[list[Generation]]:
    batch: list[Generation] = []
    for generation in generations:
        batch.append(generation)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _words(generation: Generation) -> list[str]:
    """Words; a text written without spaces falls into its tokens instead."""
    words = generation.completion.split()
    return words if len(words) > 1 else [str(token) for token in generation.token_ids]


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_.=" else "_" for letter in label)
