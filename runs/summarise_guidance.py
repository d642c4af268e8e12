"""Print tables over seeds from the guidance-SEED.json files of arithmetic_guidance.py.

    python runs/summarise_guidance.py runs/results/arithmetic/guidance-*.json

Intervals (95 %) are over seeds and questions, which all seeds share. The share of the teacher's
gain that a guide keeps is (its accuracy − plain) / (the teacher's − plain). The teacher's accuracy
at the guide's KL is interpolated linearly, answer by answer, between plain sampling (KL 0) and the
teacher's rows.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.evaluation.statistics import mean_of_runs, over_runs, two_level
from rewardsteer.outputs import read_json
from rewardsteer.reports.tables import markdown

Runs = Sequence[Mapping[str, Any]]
_DRAWS = 2000


def right(runs: Runs, part: str, row: str) -> np.ndarray:
    """Whether answers are correct, ``[S, P]`` (seeds, questions)."""
    return np.array([[float(one) for one in run[part][row]["right"]] for run in runs])


def kept(own: np.ndarray, teacher: np.ndarray, plain: np.ndarray) -> Any:
    """Share of the teacher's gain in accuracy that a guide keeps; the bootstrap resamples the same
    questions in all runs."""
    gain, whole = own - plain, teacher - plain
    draws = np.random.default_rng(0).integers(0, own.shape[1], size=(_DRAWS, own.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = gain[:, draws].mean(axis=2) / whole[:, draws].mean(axis=2)
        return over_runs(
            gain.mean(axis=1) / whole.mean(axis=1), np.where(np.isfinite(shares), shares, np.nan),
            own.shape[1],
        )


def teacher_at(runs: Runs, divergences: Sequence[float]) -> np.ndarray:
    """The teacher's values ``[S, P]`` interpolated at each run's KL; its last row beyond that."""
    found = []
    for run, wanted in zip(runs, divergences, strict=True):
        names = ["none", *(f"{run['teacher']} @ {target:g}" for target in run["targets"])]
        reached = [run["guidance"][name]["kl"] for name in names]
        rows = np.array([right([run], "guidance", name)[0] for name in names])
        found.append([np.interp(wanted, reached, column) for column in rows.T])
    return np.array(found)


def guides(runs: Runs) -> str:
    """Every guide at every KL, against plain sampling and the teacher at the same KL."""
    heads = ["guide @ KL wanted", "KL", "accuracy", "gain", "share of the teacher's gain",
             "spread over seeds", "judge's reward"]
    plain, lines = right(runs, "guidance", "none"), []
    for name in runs[0]["guidance"]:
        own, target = right(runs, "guidance", name), name.partition(" @ ")[2]
        share = "–"
        rows = [run["guidance"][name] for run in runs]
        if target and not name.startswith(runs[0]["teacher"]):
            teacher = teacher_at(runs, [row["kl"] for row in rows])
            share = between(kept(own, teacher, plain))
        lines.append([
            name, f"{np.mean([row['kl'] for row in rows]):.2f}" if "kl" in rows[0] else "–",
            f"{own.mean():.3f}", between(two_level(own - plain), "{:+.3f}"), share,
            f"{(own - plain).mean(axis=1).std(ddof=1):.3f}" if len(runs) > 1 else "–",
            over_seeds([row["reward"] for row in rows], "{:+.3f}"),
        ])
    return markdown(heads, lines)


def gates(runs: Runs) -> str:
    """Gates of the teacher, against the teacher at all tokens with the same weight."""
    heads = ["gate and share", "steps guided", "KL", "passes per token", "accuracy",
             "share of the gain kept"]
    whole = f"{runs[0]['teacher']} @ {runs[0]['targets'][-1]:g}"
    plain, teacher = right(runs, "guidance", "none"), right(runs, "guidance", whole)
    lines = [[
        name, *(f"{np.mean([run['gates'][name][key] for run in runs]):.2f}"
                for key in ("guided", "kl", "passes")),
        f"{right(runs, 'gates', name).mean():.3f}",
        between(kept(right(runs, "gates", name), teacher, plain)),
    ] for name in runs[0]["gates"]]
    return markdown(heads, lines)


def against_teacher(runs: Runs) -> str:
    """`evaluate guide` over seeds."""
    names = ("guidance_lost", "best_agrees", "rank_correlation", "changed_by_student")
    return markdown(["guide", *names], [
        [guide, *(
            over_seeds([run["guide"][guide].get(one, {}).get("value", np.nan) for run in runs])
            for one in names
        )] for guide in runs[0]["guide"]
    ])


def ranking(runs: Runs) -> str:
    """AUROC of complete solutions over seeds."""
    return markdown(["reward model", "AUROC of complete solutions"], [
        [name, over_seeds([run["ranking"][name]["auroc"] for run in runs])]
        for name in runs[0]["ranking"]
    ])


def over_seeds(values: Sequence[float], pattern: str = "{:.3f}") -> str:
    """Mean with Student's interval over seeds."""
    mean = mean_of_runs(values)
    if np.isnan(mean.low):
        return pattern.format(mean.value)
    return f"{pattern.format(mean.value)} ± {mean.high - mean.value:.3f}"


def between(figure: Any, pattern: str = "{:.2f}") -> str:
    """A figure with its interval."""
    value = pattern.format(figure.value)
    if np.isnan(figure.low):
        return value
    return f"{value} ({pattern.format(figure.low)}, {pattern.format(figure.high)})"


def main() -> None:
    runs = [read_json(Path(place)) for place in sys.argv[1:]]
    parts: list[Callable[[Runs], str]] = [guides, gates, against_teacher, ranking]
    print(f"{len(runs)} seeds: {', '.join(str(run['seed']) for run in runs)}")
    for part in parts:
        print(f"\n{part.__doc__}\n\n{part(runs)}")


if __name__ == "__main__":
    main()
