"""PPE (arXiv 2410.14872): correct and incorrect responses of four models; human preferences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.turns import read_prompt
from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.base import (
    Item,
    Outcome,
    RewardBenchmark,
    Scores,
    mean_of,
    ratio,
    text,
)
from rewardsteer.evaluation.voting import best_of_k
from rewardsteer.objectives.agreement import auroc
from rewardsteer.outputs import given

# Parts of the names of the published data sets.
SUBSETS = ("MMLU-Pro", "MATH", "GPQA", "IFEval", "MBPP-Plus")
HUMAN = "human preference"
DRAWS = (1, 2, 4, 8, 16, 32)


class Ppe(RewardBenchmark):
    """Correctness sets have three figures. Accuracy is over the published pairs of a correct and an
    incorrect response; a tie is incorrect. Best of k is the accuracy of the best response, averaged
    over all choices of k. The third is the area under the ROC curve within rows. Human preferences
    have accuracy alone, without ties. Questions are clusters.

    The accuracy of a set is over all its pairs; best of k and the area are means over rows (a
    question and a model). ``accuracy`` is the unweighted mean of the five correctness sets, as in
    the published averages, without human preferences. The publication does not state how pairs are
    averaged within a set.
    """

    source = (
        "arXiv 2410.14872; lmarena-ai/PPE-*-Best-of-K, lmarena-ai/PPE-Human-Preference-V1"
    )

    def read(self, row: Row, number: int, place: str) -> Item | None:
        if "winner" in row:
            return self._preference(row, number, place)
        require(row, ["question_id", "prompt", "scores", "sampled_conflict_pairs"], place)
        marks: Any = row["scores"]
        if not isinstance(marks, list) or not all(isinstance(one, bool | int) for one in marks):
            raise DataError(f"{place}: expected a list of true and false in scores.")
        responses = tuple(text(row, f"response_{one}", place) for one in range(1, len(marks) + 1))
        pairs = [(int(first), int(second)) for first, second in row["sampled_conflict_pairs"]]
        if any(not (0 <= one < len(marks)) for pair in pairs for one in pair):
            raise DataError(f"{place}: sampled_conflict_pairs names a response that is not there.")
        subset = next((name for name in SUBSETS if name.lower() in place.lower()), "all")
        name = f"{subset}/{row['question_id']}/{given(row, 'model_name', number)}"
        return Item(
            name, read_prompt(row["prompt"], place), responses, subset,
            f"{subset}/{row['question_id']}",
            {"right": tuple(map(bool, marks)), "pairs": tuple(pairs)},
        )

    def _preference(self, row: Row, number: int, place: str) -> Item | None:
        """An item with a human vote between two responses; None for ties, left out as published."""
        require(row, ["question_id", "prompt", "response_1", "response_2", "winner"], place)
        winners = {"model_a": (True, False), "model_b": (False, True)}
        if row["winner"] not in winners:
            if "tie" in str(row["winner"]):
                return None
            raise DataError(
                f"{place}: expected model_a, model_b or a tie as winner, got {row['winner']!r}."
            )
        name = f"{HUMAN}/{row['question_id']}"
        return Item(
            name, read_prompt(row["prompt"], place),
            (text(row, "response_1", place), text(row, "response_2", place)), HUMAN, name,
            {"right": winners[row["winner"]], "pairs": ((0, 1),)},
        )

    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        """Sums: pairs whose correct response scores higher, all pairs; the area within rows, rows
        with both labels; then for each k the accuracy of best of k, and rows with k responses."""
        found = []
        for item, own in zip(items, scores, strict=True):
            right = item.truth["right"]
            won = sum(
                own[one] > own[other] if right[one] else own[other] > own[one]
                for one, other in item.truth["pairs"]
            )
            area = math.nan if item.subset == HUMAN else auroc(right, own)
            known = not math.isnan(area)
            sums = [won, len(item.truth["pairs"]), area if known else 0.0, known]
            for k in DRAWS:
                enough = len(own) >= k and item.subset != HUMAN
                sums += [best_of_k(own.tolist(), list(right), k) if enough else 0.0, enough]
            found.append(
                Outcome(item.subset, item.cluster, np.array(sums, dtype=float), item.subset)
            )
        return found

    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Pair accuracy, area and best of k by subset; the mean accuracy of the five subsets where
        all are there."""
        found: dict[str, float] = {}
        for name, own in sums.items():
            if own[1]:
                found[name] = ratio(own[:2])
            if own[3]:
                found[f"{name}, AUC within rows"] = ratio(own[2:4])
            found |= {
                f"{name}, best of {k}": ratio(own[4 + 2 * place : 6 + 2 * place])
                for place, k in enumerate(DRAWS) if own[5 + 2 * place]
            }
        mean = mean_of(found, SUBSETS)
        return found if mean is None else {"accuracy": mean, **found}
