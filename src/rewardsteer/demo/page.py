"""The demo's report page and terminal table, from its result files alone."""

import json
from pathlib import Path
from typing import Any

from rewardsteer.demo.goal import BENCHMARK
from rewardsteer.outputs import read_json, read_jsonl
from rewardsteer.reports.correctness import (
    FILTER_COLUMNS,
    RANKING_COLUMNS,
    filter_plot,
    filter_rows,
    percentile_plot,
    ranking_rows,
)
from rewardsteer.reports.page import write_page
from rewardsteer.reports.plots import Point, bars, curves, scatter
from rewardsteer.reports.sections import Figure, Prose, Samples, Section, Settings, Table
from rewardsteer.reports.tables import (
    AUROC_COLUMNS,
    METHOD_COLUMNS,
    auroc_rows,
    between,
    method_rows,
)

_SHOWN = ("none", "args", "pargs", "genarm", "farma")


def write_demo_page(folder: Path) -> Path:
    """``FOLDER/report.html`` from ``summary.json``, metrics and generations in the folder."""
    summary = read_json(folder / "summary.json")
    methods: dict[str, Any] = summary["methods"]
    lead = (
        f"A small policy with systematic errors is right {methods['none']['accuracy']:.0%} of the "
        f"time when sampled and {methods['none greedy']['accuracy']:.0%} when decoded greedily. "
        f"Steered by FaRMA, with one call of a reward model per token, it is right "
        f"{methods['farma']['accuracy']:.0%} of the time."
    )
    sections = [
        Section("Methods", "methods", _methods(methods, summary)),
        Section("At equal budgets", "budget", [_budget(summary["budget"])]),
        Section("Reward models", "reward-models", _reward_models(summary)),
        Section("Goal-conditioned reward model", "goal", _goal(folder, summary["goal"])),
        Section("Training", "training", _training(folder)),
        Section("Completions", "completions", [_samples(folder)]),
        Section("Settings", "settings", [Settings(_flat(summary["config"]))]),
    ]
    place = folder / "report.html"
    write_page(place, "Steering a flawed policy with reward models", lead, sections)
    return place


def _methods(methods: dict[str, Any], summary: dict[str, Any]) -> list[Any]:
    weights = ", ".join(f"{name} {weight:g}" for name, weight in summary["weights"].items())
    names = list(methods)
    return [
        Prose(
            "The policy learned from text that gets a fixed set of facts wrong more often than "
            "right, so a lower temperature makes it worse, not better. The untrained FaRMA head is "
            "the language-model head itself: adding its rewards only sharpens the policy, and "
            "whatever FaRMA gains must be gained beyond that row."
        ),
        Table(
            f"{methods['none']['count']:g} test questions. Reward is the plain model's, ± standard "
            f"error; calls and time per generated token. Weights (of cards the reward target) "
            f"chosen on other questions: {weights}. cards, speculative rejection and best-of-n ask "
            "the plain model, goal_filter votes over what stays near the goal state.",
            METHOD_COLUMNS, method_rows(methods), frozenset({"farma"}),
        ),
        *_overoptimised(methods),
        Figure(
            bars(
                names, [methods[name]["accuracy"] for name in names],
                [1.96 * methods[name].get("accuracy_stderr", 0.0) for name in names],
                x_label="share of right answers (bars: 95 %)",
                reference=methods["none"]["accuracy"], highlight=("farma",),
            ),
            "Bar chart of the share of right answers of every method.",
            "True accuracy, by the checker. The dashed line is plain sampling.",
        ),
        Figure(
            scatter(
                [
                    Point(
                        name, 1e3 * methods[name]["seconds_per_token"], methods[name]["reward"],
                        methods[name].get("reward_stderr", 0.0),
                    )
                    for name in names
                ],
                x_label="milliseconds per generated token", y_label="mean reward (plain model)",
                log_x=True,
            ),
            "Scatter plot of mean reward against time per token of every method.",
            "What a unit of reward costs.",
        ),
    ]


def _budget(methods: dict[str, Any]) -> Table:
    return Table(
        "The same questions when every method may read as many tokens as best-of-n (policy and "
        "reward model together; tokens of a model of another size count in proportion). A method "
        "draws as many responses as that pays for and keeps the one that its own reward model "
        "likes best; goal_filter and speculative rejection draw several to a response. Plain "
        "sampling has nothing to choose by.",
        ("method", "accuracy (95 %)", "responses drawn", "tokens a question"),
        [
            [
                name, between(figures, "accuracy", "accuracy_low", "accuracy_high", "{:.3f}"),
                f"{figures['draws']:.0f}", f"{figures['equivalent_tokens']:.0f}",
            ]
            for name, figures in methods.items()
        ],
        frozenset({"farma"}),
    )


def _overoptimised(methods: dict[str, Any]) -> list[Any]:
    """A warning for methods that gained reward and lost truth, when there are any."""
    names = [
        name for name, figures in methods.items()
        if figures["reward_gain"] > 0 and figures["accuracy_gain_high"] < 0
    ]
    if not names:
        return []
    return [
        Prose(
            f"More reward and less truth: {', '.join(names)}. The weight was chosen by the reward "
            "of a model that is itself imperfect, and this is what overdoing it looks like."
        )
    ]


def _reward_models(summary: dict[str, Any]) -> list[Any]:
    return [
        Table(
            f"Ranking right above wrong on {summary['config']['fresh']} fresh solutions of the "
            "policy.", AUROC_COLUMNS, auroc_rows(summary["reward_models"]),
        )
    ]


def _goal(folder: Path, goal: dict[str, Any]) -> list[Any]:
    metrics = {
        label: read_json(folder / "goal" / name / "metrics.json")[BENCHMARK]
        for label, name in (("plain", "plain"), ("goal-conditioned", "goal"))
    }
    gain = between(goal, "auroc_gain", "auroc_gain_low", "auroc_gain_high", "{:+.3f}")
    return [
        Prose(
            "Trained on the same pairs for as many updates, with a contrastive loss on its hidden "
            "states added, so that the cosine of a prefix's state to the mean state at the end of "
            "right solutions (the goal state) says how well it is going. AUROC of the reward: "
            f"{goal['auroc']:.3f} against the plain model's {goal['auroc_baseline']:.3f}, a "
            f"difference of {gain}."
        ),
        Table(
            "Several solutions of each question, with 95 % intervals over questions. Within a "
            "question: mean AUROC among the solutions of one question.",
            ("model", *RANKING_COLUMNS[1:]), ranking_rows(metrics),
            frozenset({"goal-conditioned"}),
        ),
        Figure(
            percentile_plot(goal["auroc_by_percentile"]),
            "Line chart of AUROC against the share of the solution that was read.",
            "Telling right from wrong before the end: the goal-conditioned model's reward and "
            "similarity, and the plain model's reward (baseline).",
        ),
        Table(
            "Majority vote after dropping solutions whose value falls below a threshold while they "
            "are written. Thresholds were chosen on other questions than these.",
            ("model", *FILTER_COLUMNS[1:]), filter_rows(metrics),
        ),
        Figure(
            filter_plot(metrics["goal-conditioned"]),
            "Line chart of vote accuracy against tokens generated, for filters and baselines.",
            "What a vote costs: the goal-conditioned model's filters at every threshold, plain "
            "votes of fewer samples, and rules that stop sampling early.",
        ),
    ]


def _training(folder: Path) -> list[Any]:
    series: dict[str, tuple[list[float], list[float]]] = {}
    for name in ("plain", "goal", "pargs", "genarm", "farma"):
        steps: list[float] = []
        values: list[float] = []
        offset, last = 0, 0
        phase = None
        for _, row in read_jsonl(folder / "reward_models" / name / "metrics.jsonl"):
            if row["phase"] != phase:
                offset, phase = offset + last, row["phase"]
            last = row["step"]
            if "accuracy" in row:
                steps.append(offset + row["step"])
                values.append(row["accuracy"])
        series[name] = (steps, values)
    return [
        Figure(
            curves(series, x_label="updates", y_label="share of pairs ranked right"),
            "Line chart of the share of training pairs ranked right while training.",
            "Training pairs ranked right, mean of the last 25 updates. PARGS ranks prefixes, many "
            "of which the two responses share: those tie and count one half.",
        )
    ]


def _samples(folder: Path) -> Samples:
    by_method = {}
    for name in _SHOWN:
        rows = [row for _, row in read_jsonl(folder / "comparison" / "test" / f"{name}.jsonl")]
        by_method[name] = rows[:12]
    cells = []
    for index in range(len(by_method["none"])):
        row = [by_method["none"][index]["generation"]["prompt"]]
        for name in _SHOWN:
            record = by_method[name][index]
            mark = "✓" if record["metrics"]["accuracy"] else "✗"
            text = record["generation"]["completion"]
            row.append(f"{mark} {text}\n{record['metrics']['reward']:+.2f}")
        cells.append(row)
    return Samples(
        "The first test questions: right or wrong, and the plain model's reward.",
        ["question", *_SHOWN], cells,
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str) else json.dumps(value)
    return flat
