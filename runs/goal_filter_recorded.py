"""Measure goal_filter on recorded solutions of real models, without generating again.

    python runs/goal_filter_recorded.py OUT SCORES…

SCORES: one file of scored solutions per reward model (all/BENCHMARK.jsonl of `rewardsteer score`,
with similarities and labels), as runs/gsm8k_goal.sh writes them to OUT/goal-SEED/scores. The
samples of a question are taken from the recorded ones, in several orders. The rules of the method
decide which samples start, where each is dropped, and the vote. Samples do not depend on each
other, so the token counts equal those of decoding. The reward model's tokens count as if it had the
size of the policy. Writes OUT/table.md.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from goal_filter import Figures, choose_rules, compared, table

from rewardsteer.answers import canonical_answer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.strategies.early_rejection import rejection_rule
from rewardsteer.decoding.strategies.votes import Vote
from rewardsteer.goals.calibration import PositionCalibration, load_calibration
from rewardsteer.outputs import read_jsonl, write_text

SAMPLES, ORDERS = 16, 8


@dataclass
class Recorded:
    """A recorded solution, of which ``written`` tokens have been replayed."""

    row: dict[str, Any]
    written: int = 0

    @property
    def answer(self) -> str | None:
        return canonical_answer(self.row.get("predicted_answer"))

    def write(self, watch: Any) -> bool:
        """Replay up to the token at which it is dropped, or to its end; True if it is kept."""
        for value in self.row["token_similarities"][self.written :]:
            self.written += 1
            if watch is not None and watch(value):
                return False
        return True


def decode(
    config: DecodingConfig, rows: Sequence[dict[str, Any]],
    calibration: PositionCalibration | None = None,
) -> tuple[float, float, float]:
    """Whether the vote is correct, tokens that both models processed, and tokens generated."""
    vote, read = Vote(config), 0
    begun: dict[int, Recorded] = {}
    while samples := vote.next_round():
        for sample in samples:
            one, watch = begun.setdefault(sample, Recorded(rows[sample])), rejection_rule(
                config, calibration
            )
            kept = one.write(watch)
            if watch is not None:
                read += one.row["prompt_tokens"] + one.written
            if kept:
                vote.count(sample, one.answer)
    if not vote.answers:
        # All samples were dropped: all are written to their ends instead.
        for sample, one in begun.items():
            one.write(None)
            vote.count(sample, one.answer)
    chosen = vote.winner()
    written = sum(one.written for one in begun.values())
    prompts = sum(one.row["prompt_tokens"] for one in begun.values())
    right = bool(begun[chosen].row["is_correct"])
    return float(right), float(prompts + written + read), float(written)


def questions(place: Path) -> list[list[dict[str, Any]]]:
    """Scored solutions by question; questions with too few of them are left out."""
    found = defaultdict(list)
    for _, row in read_jsonl(place):
        if row.get("token_similarities") and row.get("is_correct") is not None:
            found[row["question_id"]].append(row)
    return [rows for _, rows in sorted(found.items()) if len(rows) >= SAMPLES]


def orders(asked: Iterable[Sequence[dict[str, Any]]], most: int) -> list[list[dict[str, Any]]]:
    """Every question in several random orders of its solutions."""
    rng = random.Random(0)
    return [rng.sample(list(rows), min(most, len(rows))) for rows in asked for _ in range(ORDERS)]


def measure(place: Path, out: Path) -> dict[str, Figures]:
    """Figures of all methods on half of the questions, their settings chosen on the other half."""
    asked = questions(place)
    random.Random(0).shuffle(asked)
    half = len(asked) // 2
    print(f"{half} questions for choosing, {len(asked) - half} for testing", flush=True)
    base = DecodingConfig(drop_start=5, max_new_tokens=10_000)
    flat = [row for rows in orders(asked[:half], SAMPLES) for row in rows]
    rules = choose_rules(
        base, [np.array(row["token_similarities"]) for row in flat],
        [Recorded(row).answer for row in flat], [bool(row["is_correct"]) for row in flat],
        SAMPLES, out / "calibration.json",
    )
    calibration = load_calibration(out / "calibration.json")
    test, figures = orders(asked[half:], 3 * SAMPLES), {}
    most = min(map(len, test))
    for label, settings in compared(rules, SAMPLES).items():
        n = min(settings["n"], most)
        label = label.replace(f"n = {settings['n']}", f"n = {n}")
        config = base.model_copy(update={"method": "goal_filter", **settings, "n": n})
        found = np.array([decode(config, rows, calibration) for rows in test])
        means = found.reshape(-1, ORDERS, 3).mean(axis=1)
        figures[label] = dict(zip(("accuracy", "tokens", "drawn"), means.T.tolist(), strict=True))
        print(label, found.mean(axis=0).round(3).tolist(), flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("scores", type=Path, nargs="+")
    arguments = parser.parse_args()
    figures = [
        measure(place, arguments.out / str(number))
        for number, place in enumerate(arguments.scores)
    ]
    write_text(arguments.out / "table.md", table(figures, f"plain vote, n = {SAMPLES}") + "\n")


if __name__ == "__main__":
    main()
