"""Print tables over seeds from the ranking-SEED.json files of arithmetic_ranking.py.

    python runs/summarise_ranking.py RESULTS/ranking-*.json

The guidance-SEED.json files of the same seeds must be in the same folder. They hold the results of
FaRMA and the teacher, with which further heads are compared. Intervals (95 %) are over seeds
and questions, which all seeds share.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from summarise_guidance import between, guides, over_seeds

from rewardsteer.evaluation.statistics import two_level
from rewardsteer.outputs import read_json
from rewardsteer.reports.tables import markdown

Runs = Sequence[Mapping[str, Any]]


def draws_right(runs: Runs) -> np.ndarray:
    """Whether the guide's draws are correct, ``[S, P, N]`` (seeds, questions, draws)."""
    return np.array([[[float(one) for one in row] for row in run["right"]] for run in runs])


def chosen_right(runs: Runs, name: str) -> np.ndarray:
    """Whether the draws that a score chooses are correct, ``[S, P]``."""
    places = np.array([run["chosen"][name] for run in runs])
    return np.take_along_axis(draws_right(runs), places[:, :, None], axis=2)[:, :, 0]


def ranked(
    runs: Runs, labels: Mapping[str, str], area: Callable[[Sequence[float]], str]
) -> list[list[str]]:
    """A line for each score, between those of any draw and of a correct one: label, AUROC, accuracy
    of the draw that the score would choose, gain over any draw.

    Args:
        runs: results of the seeds.
        labels: names of the scores, and how the table calls them.
        area: writes the areas of all seeds.
    """
    right = draws_right(runs)
    average = right.mean(axis=2)
    lines = [["any draw", "", f"{average.mean():.3f}", ""]]
    for name, label in labels.items():
        chosen = chosen_right(runs, name)
        lines.append([
            label, area([run["auroc"][name]["auroc"] for run in runs]), f"{chosen.mean():.3f}",
            between(two_level(chosen - average), "{:+.3f}"),
        ])
    return [*lines, [
        "a correct draw where one exists", "", f"{right.max(axis=2).mean():.3f}", ""
    ]]


def rankers(runs: Runs) -> str:
    """AUROC of complete solutions, and accuracy of the draw that each score would choose."""
    return markdown(
        ["score", "AUROC of complete solutions", f"chosen of {runs[0]['draws']}: accuracy", "gain"],
        ranked(runs, {name: name for name in runs[0]["auroc"]}, over_seeds),
    )


def main() -> None:
    places = [Path(place) for place in sys.argv[1:]]
    runs = [read_json(place) for place in places]
    beside = [
        read_json(place.with_name(place.name.replace("ranking", "guidance"))) for place in places
    ]
    kept = ("none", "pargs @", "farma @", "zeros max @", "zeros pairs alone @")
    together = [
        one | {"guidance": {
            name: row for name, row in one["guidance"].items() if name.startswith(kept)
        } | run["guidance"]}
        for one, run in zip(beside, runs, strict=True)
    ]
    print(f"{len(runs)} seeds: {', '.join(str(run['seed']) for run in runs)}")
    print(f"\n{rankers.__doc__}\n\n{rankers(runs)}")
    print(f"\n{guides.__doc__}\n\n{guides(together)}")


if __name__ == "__main__":
    main()
