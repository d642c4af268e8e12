"""Win rates by a language model behind any OpenAI-compatible address.

Each method's response to a prompt is compared with the baseline's. The order is drawn: the baseline
comes first in half of a method's pairs (up to one pair), so a judge that always prefers the first
response gives a win rate of one half. Alternatively each pair is judged in both orders, which
measures how often the judge contradicts itself. Equal responses are a tie without a request.

    PLACE    one `Judgement` a line, with the judge's raw answer; resumable
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from rewardsteer.evaluation.length_control import length_controlled
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
        id: id of the prompt.
        method, baseline: labels of the two methods.
        judge: name of the language model.
        baseline_first: whether the baseline's response was response A.
        answer: the judge's answer, unchanged.
        verdict: win, tie or loss of the method; None when the answer holds no verdict.
        refused: why there is no answer: the server refused the request, or replied with an error
            or an empty text. Such a pair is sent again on resume.
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
    judge: PairJudge, records: Mapping[str, Sequence[EvalRecord]], baseline: str, place: Path, *,
    both_orders: bool = False,
) -> dict[str, dict[str, float]]:
    """Win rates of every method but the baseline; only pairs missing in ``place`` are judged.

    Args:
        judge: the language model.
        records: of each method, the same prompts in the same order.
        baseline: one of the methods.
        place: JSONL file of judgements.
        both_orders: judge every pair twice, with either response first.

    Returns:
        per method ``win_rate`` with a 95 % interval over prompts. It is over the pairs with a
        verdict (with both verdicts, where both orders are judged); a tie counts one half, a pair
        the mean of its verdicts. Further counts of ``wins``, ``ties`` (contradictory verdicts
        included), ``losses``, ``no_verdict`` (answers without a verdict) and ``refused`` (requests
        without an answer). With both orders ``consistent``, the share of pairs with the same
        verdict twice, and ``first_wins``, the share of verdicts for the response shown first, a
        tie counting one half; both with intervals. ``lc_win_rate`` is the win rate at equal lengths
        (`length_controlled`), for ten pairs or more.

    Raises:
        ConfigError: the server cannot be reached, or fails again and again.
        DataError: ``place`` holds other lines than judgements.
    """
    known = {
        (one.judge, one.method, one.baseline, one.id, one.baseline_first): one
        for one in load_records(place, Judgement, "judgement") if not one.refused
    }
    figures = {}
    for method, theirs in records.items():
        if method == baseline:
            continue
        pairs = _pairs(theirs, records[baseline], f"{method}/{baseline}", both_orders)
        made = {
            (pair.id, pair.baseline_first): known[key] for pair in pairs
            if (key := (judge.model, method, baseline, pair.id, pair.baseline_first)) in known
        }
        missing = [pair for pair in pairs if (pair.id, pair.baseline_first) not in made]
        for one in _judge(judge, method, baseline, missing):
            append_jsonl(place, [one.model_dump_json()])
            made[one.id, one.baseline_first] = one
        equal = len(theirs) - len({pair.id for pair in pairs})
        figures[method] = _rate(list(made.values()), equal, both_orders)
        figures[method] |= _at_equal_lengths(theirs, records[baseline], list(made.values()))
    return figures


def _pairs(
    records: Sequence[EvalRecord], baseline: Sequence[EvalRecord], seed: str, both_orders: bool
) -> list[Pair]:
    """Pairs of different responses; the baseline is first in half of them, by a seeded draw. With
    ``both_orders`` every pair comes twice."""
    different = [
        (ours.generation, theirs.generation)
        for ours, theirs in zip(records, baseline, strict=True)
        if ours.generation.completion != theirs.generation.completion
    ]
    order = sorted(ours.id for ours, _ in different)
    random.Random(seed).shuffle(order)
    first = set(order[: len(order) // 2])
    return [
        Pair(ours.id, ours.prompt, ours.completion, theirs.completion, order)
        for ours, theirs in different
        for order in ((False, True) if both_orders else (ours.id in first,))
    ]


def _judge(
    judge: PairJudge, method: str, baseline: str, pairs: Sequence[Pair]
) -> Iterator[Judgement]:
    """Judge pairs, several at a time; yields judgements in the order of the pairs."""
    with ThreadPoolExecutor(_WORKERS) as workers:
        for pair, (answer, refused) in zip(pairs, workers.map(judge.ask, pairs), strict=True):
            yield Judgement(
                id=pair.id, method=method, baseline=baseline, judge=judge.model,
                baseline_first=pair.baseline_first, answer=answer,
                verdict=read_verdict(answer, pair.baseline_first), refused=refused,
            )


def read_verdict(answer: str, baseline_first: bool) -> Verdict | None:
    """The last verdict in an answer, as the method's win, tie or loss; None without one."""
    found = _VERDICT.findall(answer)
    if not found:
        return None
    letter = found[-1].lower()
    if letter == "tie":
        return "tie"
    return "win" if (letter == "b") == baseline_first else "loss"


_WORTH = {"win": 1.0, "tie": 0.5, "loss": 0.0}


def _worth(judgements: Sequence[Judgement]) -> dict[str, list[float]]:
    """Verdicts of each pair as numbers (1, ½, 0), by the pair's id; empty without a verdict."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in judgements:
        found[one.id] += [] if one.verdict is None else [_WORTH[one.verdict]]
    return found


def _rate(judgements: Sequence[Judgement], equal: int, both_orders: bool) -> dict[str, float]:
    """Figures of a method from its judgements and its number of equal responses."""
    asked = 2 if both_orders else 1
    whole = [worth for worth in _worth(judgements).values() if len(worth) == asked]
    values = [sum(worth) / asked for worth in whole] + [0.5] * equal
    signs = Counter((value > 0.5) - (value < 0.5) for value in values)
    figures: dict[str, float] = {
        "wins": signs[1], "ties": signs[0], "losses": signs[-1],
        "no_verdict": sum(one.verdict is None and not one.refused for one in judgements),
        "refused": sum(bool(one.refused) for one in judgements),
    }
    if values:
        figures |= share(values).figures("win_rate")
    if both_orders and whole:
        firsts = [
            _WORTH[one.verdict] if not one.baseline_first else 1 - _WORTH[one.verdict]
            for one in judgements if one.verdict is not None
        ]
        owners = [one.id for one in judgements if one.verdict is not None]
        figures |= share([float(one == other) for one, other in whole]).figures("consistent")
        figures |= share(firsts, owners).figures("first_wins")
    return figures


def _at_equal_lengths(
    records: Sequence[EvalRecord], baseline: Sequence[EvalRecord], made: Sequence[Judgement]
) -> dict[str, float]:
    """``lc_win_rate`` with its interval, over the pairs with a verdict and those of equal
    responses; a pair with several verdicts counts as their mean."""
    verdicts, rows = _worth(made), []
    for ours, theirs in zip(records, baseline, strict=True):
        found = verdicts.get(ours.generation.id, [0.5])
        if found:
            rows.append((
                sum(found) / len(found), len(ours.generation.completion),
                len(theirs.generation.completion),
            ))
    return length_controlled(*zip(*rows, strict=True)).figures("lc_win_rate") if rows else {}
