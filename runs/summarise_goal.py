"""Print tables over seeds of runs/gsm8k_goal.sh or runs/arithmetic_goal.py, as Markdown.

    python runs/summarise_goal.py OUT PLAN… [--write FILE]

It reads OUT/PLAN-SEED/metrics/metrics.json. ``--write`` also writes the results of each seed to a
JSON file, which runs/readme_tables.py reads.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.evaluation.statistics import mean_of_runs
from rewardsteer.models.checkpoint import read_card
from rewardsteer.reports.tables import markdown


def main() -> None:
    """Print the tables, and write the figures where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("plans", nargs="+")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    runs = {plan: _runs(given.out, plan) for plan in given.plans}
    runs = {plan: found for plan, found in runs.items() if found}
    if given.write:
        found = figures(runs) | _training(given.out, next(iter(runs)))
        given.write.write_text(json.dumps(found, indent=2) + "\n")
    for benchmark in next(iter(runs.values()))[0]:
        several = {plan: [run[benchmark] for run in found] for plan, found in runs.items()}
        first = next(iter(several.values()))[0]
        counts = f"{first['questions']} questions, {first['solutions']} solutions"
        print(f"\n**{benchmark}**: {counts}\n")
        _ranking(several)
        _percentiles(several)
        _filtering(several)


def figures(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Figures as lists over seeds, by benchmark and plan; controls are from the first plan."""
    first = next(iter(runs.values()))
    found: dict[str, Any] = {"seeds": min(len(one) for one in runs.values()), "benchmarks": {}}
    for name, one in first[0].items():
        found["benchmarks"][name] = {
            "questions": one["questions"], "solutions": one["solutions"],
            "majority_accuracy": [run[name]["majority_accuracy"] for run in first],
            "controls": {
                control: [run[name]["controls"][control]["auroc"] for run in first]
                for control in ("source", "length") if control in one["controls"]
            },
            "plans": {
                key: columns for plan, several in runs.items()
                for key, columns in _plan(plan, [run[name] for run in several])
            },
        }
    return found


def _training(out: Path, plan: str) -> dict[str, Any]:
    """Base model and number of pairs of the first seed's model, from its card."""
    card = read_card(sorted(out.glob(f"{plan}-[0-9]*/model"))[0])
    return {"base": Path(card.base_model).name, "pairs": card.data["rows"]["train"]}


def _plan(plan: str, several: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Figures of a plan's reward, then of its similarity to a goal state if it has one."""
    yield plan, _columns(several, "reward", "auroc")
    if "auroc_similarity" in several[0]:
        yield f"{plan}, similarity", _columns(several, "similarity", "auroc_similarity")


def _columns(several: list[dict[str, Any]], signal: str, area: str) -> dict[str, Any]:
    """Each figure as a list over the seeds that have it, and the mean gain over the baseline with
    its interval over seeds."""
    found: dict[str, Any] = defaultdict(list)
    for run in several:
        if area in run:
            found["auroc"].append(run[area])
        if signal == "reward":
            found["best_of_accuracy"].append(run["best_of_accuracy"])
            for name in ("within_source", "within_question"):
                if name in run["controls"]:
                    found[name].append(run["controls"][name])
        for point in run["auroc_by_percentile"].get(signal, []):
            if abs(point["percentile"] - 0.8) < 1e-9:
                found["auroc_at_80"].append(point["auroc"])
        if signal in run.get("against_baseline", {}):
            found["gain"].append(run["against_baseline"][signal]["gain"])
    if found["gain"]:
        found |= mean_of_runs(found["gain"]).figures("gain_mean")
    return {key: value for key, value in found.items() if value != []}


def _runs(out: Path, plan: str) -> list[dict[str, Any]]:
    files = sorted(out.glob(f"{plan}-[0-9]*/metrics/metrics.json"))
    return [json.loads(file.read_text()) for file in files]


def _ranking(several: dict[str, list[dict[str, Any]]]) -> None:
    heads = ("model", "seeds", "AUROC reward", "gain over baseline, each seed (95 %)",
             "AUROC similarity", "within a question", "similarity", "best of n", "weighted vote")
    lines = []
    for plan, runs in several.items():
        gains = [run.get("against_baseline", {}).get("reward") for run in runs]
        shown = "; ".join(_gain(one) for one in gains if one)
        lines.append([plan, str(len(runs)), _spread(runs, "auroc"), shown or "–", *(
            _spread(runs, name) for name in (
                "auroc_similarity", "auroc_per_question", "auroc_per_question_similarity",
                "best_of_accuracy", "weighted_accuracy",
            )
        )])
    print(markdown(heads, lines))
    for plan, runs in several.items():
        gains = [run["against_baseline"]["reward"]["gain"] for run in runs
                 if "against_baseline" in run]
        if len(gains) > 1:
            mean = mean_of_runs(gains)
            print(
                f"\n{plan}: AUROC gain over the baseline, mean of {len(gains)} seeds "
                f"{mean.value:+.3f} (95 % {mean.low:+.3f}, {mean.high:+.3f})"
            )
    majority = next(iter(several.values()))[0]["majority_accuracy"]
    print(f"\nMajority vote: {majority:.3f}.\n")


def _gain(one: dict[str, float]) -> str:
    """A gain as text, with its interval unless there are too few questions for one."""
    if "low" not in one:
        return f"{one['gain']:+.3f}"
    return f"{one['gain']:+.3f} ({one['low']:+.3f}, {one['high']:+.3f})"


def _percentiles(several: dict[str, list[dict[str, Any]]]) -> None:
    shares = (0.2, 0.4, 0.6, 0.8, 1.0)
    lines = []
    for plan, runs in several.items():
        for signal in ("reward", "similarity"):
            cells = []
            for share in shares:
                values = [
                    point["auroc"] for run in runs
                    for point in run["auroc_by_percentile"].get(signal, [])
                    if abs(point["percentile"] - share) < 1e-9
                ]
                cells.append(f"{np.mean(values):.3f}" if values else "–")
            lines.append([f"{plan}, {signal}", *cells])
    print(markdown(["AUROC at", *(f"{share:.0%}" for share in shares)], lines) + "\n")


def _filtering(several: dict[str, list[dict[str, Any]]]) -> None:
    heads = ("filter", "signal", "threshold chosen", "filtered", "tokens saved", "vote before",
             "vote after", "plain vote, equal tokens")
    lines = []
    for plan, runs in several.items():
        for signal in ("reward", "similarity"):
            for choice in ("published", "best", "free", "risk"):
                records = [
                    run["filtering"][signal][choice] for run in runs
                    if choice in run.get("filtering", {}).get(signal, {})
                ]
                if records:
                    seeds = f"{choice} ({len(records)} of {len(runs)} seeds)"
                    lines.append([plan, signal, seeds, *(
                        _spread(records, name) for name in (
                            "filtered", "tokens_saved", "accuracy_before", "accuracy",
                            "plain_vote_at_equal_tokens",
                        )
                    )])
    print(markdown(heads, lines) + "\n")


def _spread(records: list[dict[str, Any]], name: str) -> str:
    """Mean, and the lowest and highest of several seeds."""
    values = [record[name] for record in records if name in record]
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ({min(values):.3f} – {max(values):.3f})"


if __name__ == "__main__":
    main()
