"""Win rates by a language model behind any OpenAI-compatible address.

Each method's response to a prompt is compared with the baseline's. Which of the two is shown first
is drawn: in half of a method's pairs, to one pair, the baseline comes first, so a judge that always
prefers the first response gives one half. Equal responses are a tie and nobody is asked.

    PLACE    one `Judgement` a line, with the judge's raw answer; resumable
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from rewardsteer.evaluation.pair_judge import Pair, PairJudge
from rewardsteer.evaluation.record_files import load_records
from rewardsteer.evaluation.statistics import share
from rewardsteer.outputs import append_jsonl
from rewardsteer.records import EvalRecord, Record

Verdict = Literal["win", "tie", "loss"]

_VERDICT = re.compile(r"verdict\W*(?:response )?(a|b|tie)\W*$", re.IGNORECASE | re.MULTILINE)
_WORKERS = 8


class Judgement(Record):
    """A judge's verdict on one pair of responses.

    Attributes:
        id: of the request.
        method, baseline: labels of the two.
        judge: name of the language model.
        baseline_first: whether the baseline's response was response A.
        answer: the judge's answer, unchanged.
        verdict: of the method against the baseline; None when the answer holds none.
        refused: why there is no answer: the server refused the question, or sent an error or
            nothing instead of an answer. Such a pair is asked again on resume.
    """

    id: str
    method: str
    baseline: str
    judge: str
    baseline_first: bool
    answer: str = ""
    verdict: Verdict | None = None
    refused: str = ""


def win_rates(
    judge: PairJudge, records: Mapping[str, Sequence[EvalRecord]], baseline: str, place: Path
) -> dict[str, dict[str, float]]:
    """Figures of every method but the baseline; asks only what ``place`` does not hold.

    Args:
        judge: the language model.
        records: of each method, the same prompts in the same order.
        baseline: one of the methods.
        place: JSONL of judgements.

    Returns:
        per method ``win_rate``, with a 95 % interval, over the pairs with a verdict, a tie
        counting one half; counts of ``wins``, ``ties``, ``losses``, ``no_verdict`` (answers that
        say none of the three) and ``refused`` (questions without an answer).

    Raises:
        ConfigError: the server cannot be reached, or fails again and again.
        DataError: ``place`` holds other lines than judgements.
    """
    known = {
        (one.judge, one.method, one.baseline, one.id): one
        for one in load_records(place, Judgement, "judgement") if not one.refused
    }
    figures = {}
    for method, theirs in records.items():
        if method == baseline:
            continue
        pairs = _pairs(theirs, records[baseline], f"{method}/{baseline}")
        made = {
            pair.id: known[key] for pair in pairs
            if (key := (judge.model, method, baseline, pair.id)) in known
        }
        for one in _judge(judge, method, baseline, [p for p in pairs if p.id not in made]):
            append_jsonl(place, [one.model_dump_json()])
            made[one.id] = one
        counts = Counter(one.verdict for one in made.values() if not one.refused)
        counts["tie"] += len(theirs) - len(pairs)
        figures[method] = _rate(counts, sum(bool(one.refused) for one in made.values()))
    return figures


def _pairs(
    records: Sequence[EvalRecord], baseline: Sequence[EvalRecord], seed: str
) -> list[Pair]:
    """Pairs of different responses; the baseline is first in half of them, by a seeded draw."""
    different = [
        (ours.generation, theirs.generation)
        for ours, theirs in zip(records, baseline, strict=True)
        if ours.generation.completion != theirs.generation.completion
    ]
    order = sorted(ours.id for ours, _ in different)
    random.Random(seed).shuffle(order)
    first = set(order[: len(order) // 2])
    return [
        Pair(ours.id, ours.prompt, ours.completion, theirs.completion, ours.id in first)
        for ours, theirs in different
    ]


def _judge(
    judge: PairJudge, method: str, baseline: str, pairs: Sequence[Pair]
) -> Iterator[Judgement]:
    """Ask about pairs, some at once; judgements in their order."""
    with ThreadPoolExecutor(_WORKERS) as workers:
        for pair, (answer, refused) in zip(pairs, workers.map(judge.ask, pairs), strict=True):
            yield Judgement(
                id=pair.id, method=method, baseline=baseline, judge=judge.model,
                baseline_first=pair.baseline_first, answer=answer,
                verdict=read_verdict(answer, pair.baseline_first), refused=refused,
            )


def read_verdict(answer: str, baseline_first: bool) -> Verdict | None:
    """The last verdict in an answer, for the method; None when there is none."""
    found = _VERDICT.findall(answer)
    if not found:
        return None
    letter = found[-1].lower()
    if letter == "tie":
        return "tie"
    return "win" if (letter == "b") == baseline_first else "loss"


def _rate(counts: Counter[Verdict | None], refused: int) -> dict[str, float]:
    wins, ties, losses = counts["win"], counts["tie"], counts["loss"]
    figures: dict[str, float] = {
        "wins": wins, "ties": ties, "losses": losses, "no_verdict": counts[None],
        "refused": refused,
    }
    if wins + ties + losses:
        rate = share([1.0] * wins + [0.5] * ties + [0.0] * losses)
        figures |= {"win_rate": rate.value, "win_rate_low": rate.low, "win_rate_high": rate.high}
    return figures
