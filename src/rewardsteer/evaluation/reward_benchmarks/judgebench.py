"""JudgeBench (arXiv 2410.12784): pairs of one model's responses, one of them correct."""

from collections.abc import Mapping, Sequence

import numpy as np

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.turns import read_prompt
from rewardsteer.errors import DataError
from rewardsteer.evaluation.reward_benchmarks.base import (
    Item,
    Outcome,
    RewardBenchmark,
    Scores,
    ratio,
    text,
)
from rewardsteer.outputs import given

_SECTIONS = {
    "mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math",
    "livecodebench": "code",
}


class JudgeBench(RewardBenchmark):
    """The verdict is A where response A scores higher, else B; a tie is B, as published."""

    hub = "ScalerLab/JudgeBench"
    split = "gpt"
    source = "arXiv 2410.12784"

    def read(self, row: Row, number: int, place: str) -> Item | None:
        require(row, ["question", "response_A", "response_B", "label", "source"], place)
        verdict = str(row["label"]).replace(">>", ">")
        if verdict not in ("A>B", "B>A"):
            raise DataError(f"{place}: expected the label A>B or B>A, got {row['label']!r}.")
        source = str(row["source"])
        section = next((name for prefix, name in _SECTIONS.items() if source.startswith(prefix)),
                       source)
        return Item(
            str(given(row, "pair_id", number)), read_prompt(row["question"], place),
            (text(row, "response_A", place), text(row, "response_B", place)), section,
            str(given(row, "original_id", number)), {"first": verdict == "A>B"},
        )

    def outcomes(self, items: Sequence[Item], scores: Scores) -> list[Outcome]:
        return [
            Outcome(
                item.subset, f"{item.subset}/{item.cluster}",
                np.array([float((own[0] > own[1]) == item.truth["first"]), 1.0]), item.subset,
            )
            for item, own in zip(items, scores, strict=True)
        ]

    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Accuracy over all pairs, and by section."""
        whole = np.sum(list(sums.values()), axis=0)
        return {"overall": ratio(whole)} | {name: ratio(own) for name, own in sums.items()}
