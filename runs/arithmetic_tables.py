"""Tables of docs/results_guides.md, from the results of the scripts that measure guides."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from smollm2_tables import compact, interval_of
from summarise_guidance import Runs, between, kept, right, teacher_at
from summarise_ranking import ranked

from rewardsteer.evaluation.statistics import two_level
from rewardsteer.outputs import read_json
from rewardsteer.reports.tables import markdown

# Guide → its name on the page, in the page's order.
GUIDES = {
    "none": "plain sampling", "none T=0.5": "plain, temperature 0.5",
    "none greedy": "plain, greedy",
    "args": "Bradley-Terry model (`args`)", "pargs": "teacher (`pargs`)",
    "farma": "FaRMA, as published (from the LM head)", "untrained": "untrained head",
    "zeros pairs alone": "vocabulary head from zeros, pairs alone",
    "zeros max": "FaRMA from zeros, `max`", "zeros policy_soft": "… `policy_soft`, τ = 0.5",
    "zeros policy_mean": "… `policy_mean`", "zeros policy_top_k": "… `policy_top_k`, k = 3",
    "zeros joint": "… `max` jointly with the pairs",
    "zeros prefix pairs": "vocabulary head from zeros, pairs of prefixes",
    "distilled full": "distilled, full head (from the LM head)",
    "distilled rank 4": "distilled, rank 4",
    "distilled rank 16": "distilled, rank 16",
    "distilled embedding": "distilled, embedding, rank 16",
    "policy states rank 16": "distilled on the policy's frozen states, rank 16",
}
GATES = {
    "random": "random", "first": "first", "entropy, own share": "`entropy`, `--gate-share`",
    "entropy": "entropy", "top1": "top1", "kl": "kl", "two-tier": "two-tier",
}
# The same for the film reviews.
REVIEW_GUIDES = {
    "none": "plain sampling", "none T=0.5": "plain, temperature 0.5",
    "none greedy": "plain, greedy",
    "args": "Bradley-Terry model (`args`)", "pargs": "teacher (`pargs`)",
    "farma": "FaRMA, as published (from the LM head)",
    "zeros pairs alone": "vocabulary head from zeros, pairs alone",
    "zeros max": "FaRMA from zeros, `max`", "zeros policy_soft": "… `policy_soft`, τ = 0.5",
    "zeros policy_mean": "… `policy_mean`",
    "zeros prefix pairs": "vocabulary head from zeros, pairs of prefixes",
    "distilled rank 4": "distilled on the policy's frozen states, rank 4",
    "distilled rank 16": "… rank 16", "distilled rank 64": "… rank 64",
    "distilled full": "… full head",
}
REVIEWS_SHORT = {
    "none": "none", "args": "args", "pargs": "pargs", "farma": "farma, as published",
    "zeros max": "farma, from zeros",
    "distilled rank 16": "distilled, rank 16, no second model",
}
REVIEW_GATES = {name: name for name in ("random", "entropy", "top1", "kl", "two-tier")}
# Score that ranks solutions → its name on the page.
RANKERS = {
    "args": "Bradley-Terry model", "pargs": "teacher (`pargs`)", "untrained": "untrained head",
    "farma: last reward": "FaRMA, as published", "zeros max: last reward": "FaRMA from zeros",
    "zeros max: mean of rewards": "… mean of the tokens' rewards",
    "zeros max: least reward": "… minimum of the tokens' rewards",
    "zeros max: best next reward": "… best next reward after the last token",
    "zeros max: reading of its own": "… Bradley-Terry probe of its frozen states",
    "zeros pairs alone": "vocabulary head from zeros, pairs alone",
    "zeros joint": "… constraint jointly with the pairs",
    "zeros prefix pairs": "… pairs of prefixes",
}
SHARES = (0.1, 0.3)


def _runs(folder: Path, kind: str) -> Runs:
    return [read_json(place) for place in sorted(folder.glob(f"{kind}-*.json"))]


def _together(folder: Path) -> Runs:
    """Runs with the guides of arithmetic_guidance.py and arithmetic_ranking.py."""
    none: dict[str, dict[str, float]] = {"guidance": {}, "auroc": {}}
    more = {run["seed"]: run for run in _runs(folder, "ranking")}
    return [
        run | {
            "guidance": run["guidance"] | more.get(run["seed"], none)["guidance"],
            "ranking": run["ranking"] | more.get(run["seed"], none)["auroc"],
        } for run in _runs(folder, "guidance")
    ]


def guides(
    folder: Path, names: Mapping[str, str] = GUIDES, heads: Sequence[str] = ("accuracy",)
) -> str:
    """Every guide at the highest KL target; a second of ``heads`` adds a column of rewards."""
    runs = _together(folder)
    target = f" @ {runs[0]['targets'][-1]:g}"
    plain, lines = right(runs, "guidance", "none"), []
    for name, label in names.items():
        guided = not name.startswith("none")
        row = name + target * guided
        rows = [run["guidance"][row] for run in runs]
        own, share = right(runs, "guidance", row), "–"
        if guided and name != runs[0]["teacher"]:
            share = between(kept(own, teacher_at(runs, [one["kl"] for one in rows]), plain))
        lines.append([
            label, _mean([one["kl"] for one in rows], 2) if "kl" in rows[0] else "–",
            f"{own.mean():.3f}", *(_mean([one["reward"] for one in rows], 3) for _ in heads[1:]),
            share,
            _mean([run["guide"].get(name, {}).get("guidance_lost", {}).get("value", np.nan)
                   for run in runs], 2),
            _mean([run["ranking"].get(name, {}).get("auroc", np.nan) for run in runs], 3),
        ])
    return markdown(
        ["guide", "KL, nats per response", *heads,
         "share of the teacher's gain at its KL (95 %)", "guidance lost",
         "AUROC of complete solutions"], lines
    )


def gates(folder: Path, names: Mapping[str, str] = GATES, head: str = "accuracy") -> str:
    """The teacher with each gate, at each share of steps."""
    runs = _runs(folder, "guidance")
    whole = f"{runs[0]['teacher']} @ {runs[0]['targets'][-1]:g}"
    plain, teacher = right(runs, "guidance", "none"), right(runs, "guidance", whole)
    lines = []
    for share in SHARES:
        for name, label in names.items():
            row = f"{name} {share:g}"
            rows, own = [run["gates"][row] for run in runs], right(runs, "gates", row)
            lines.append([
                f"{label} {share:g}",
                *(_mean([one[key] for one in rows], 2) for key in ("guided", "passes")),
                f"{own.mean():.3f}", between(kept(own, teacher, plain)),
            ])
    return markdown(
        ["gate, share asked for", "steps guided", "reward model passes per token", head,
         "share of the gain kept (95 %)"], lines
    )


def review_guides(folder: Path) -> str:
    """`guides` for the film reviews."""
    return guides(folder, REVIEW_GUIDES, ("P(positive) by states", "by words"))


def review_gates(folder: Path) -> str:
    """`gates` for the film reviews."""
    return gates(folder, REVIEW_GATES, "P(positive)")


def reviews_short(folder: Path) -> str:
    """Film reviews, for the README: P(positive) by both judges, and calls per token."""
    runs = _runs(folder, "guidance")
    plain, lines = right(runs, "guidance", "none"), []
    for name, label in REVIEWS_SHORT.items():
        row = name if name == "none" else f"{name} @ {runs[0]['targets'][-1]:g}"
        rows, own = [run["guidance"][row] for run in runs], right(runs, "guidance", row)
        gain = two_level(own - plain).figures("reward_gain")
        lines.append([
            label, f"{own.mean():.2f}", "" if name == "none" else interval_of(gain),
            *(_mean([one[key] for one in rows], 2) for key in ("reward", "calls")),
        ])
    states, words = (
        np.mean([run["ranking"][f"judge by {one}"]["auroc"] for run in runs])
        for one in ("states", "words")
    )
    return (
        f"`runs/sentiment_guidance.py`: {len(runs)} seeds, {plain.shape[1]} openings, equal KL. "
        "Two judges estimate P(positive): by hidden states "
        f"(AUROC on sentences {states:.2f}) and by words alone ({words:.2f}).\n\n"
        + compact(["method", "P(positive)", "gain, 95 %", "by words", "RM calls per token"], lines)
    )


def rankers(folder: Path) -> str:
    """For each score, its AUROC on complete solutions and the accuracy of its choice of draws."""
    runs = _runs(folder, "ranking")
    return markdown(
        ["ranked by", "AUROC of complete solutions", f"best of {runs[0]['draws']} guided draws",
         "gain over any draw (95 %)"],
        ranked(runs, RANKERS, lambda areas: _mean(areas, 3)),
    )


def _mean(values: Sequence[float], digits: int) -> str:
    value = float(np.mean(values))
    return "" if np.isnan(value) else f"{value:.{digits}f}"
