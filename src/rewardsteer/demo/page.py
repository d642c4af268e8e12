"""The demo's report page, from its result files alone."""

from pathlib import Path
from typing import Any

from rewardsteer.demo.goal import BENCHMARK
from rewardsteer.outputs import file_name
from rewardsteer.reports.comparison import reward_figures, samples
from rewardsteer.reports.correctness import benchmark_blocks
from rewardsteer.reports.inspector import inspector
from rewardsteer.reports.page import write_page
from rewardsteer.reports.plots import Point, bars, scatter
from rewardsteer.reports.runs import INSPECTOR
from rewardsteer.reports.sections import (
    Block,
    Figure,
    Figures,
    Prose,
    Section,
    Settings,
    Table,
    Tile,
    Tiles,
)
from rewardsteer.reports.sources import Sources, flat, load_inspections, load_records
from rewardsteer.reports.tables import (
    AUROC_COLUMNS,
    METHOD_COLUMNS,
    auroc_rows,
    between,
    method_rows,
)
from rewardsteer.reports.training import training_figures

_SHOWN = ("none", "args", "pargs", "genarm", "farma")


def write_demo_page(folder: Path) -> Path:
    """``FOLDER/report.html`` from ``summary.json``, metrics and generations in the folder."""
    sources = Sources()
    summary = sources.json(folder / "summary.json")
    methods: dict[str, Any] = summary["methods"]
    lead = (
        f"A small policy with systematic errors is right {methods['none']['accuracy']:.0%} of the "
        f"time when sampled and {methods['none greedy']['accuracy']:.0%} when decoded greedily. "
        f"Steered by FaRMA, with one call of a reward model per token, it is right "
        f"{methods['farma']['accuracy']:.0%} of the time."
    )
    records = {
        name: load_records(folder / "comparison" / "test" / file_name(name), sources)
        for name in _SHOWN
    }
    tokens = load_inspections(folder / "inspections.jsonl", sources)
    sections = [
        Section("At a glance", "overview", [_tiles(summary)]),
        Section("Methods", "methods", [
            *_methods(methods, summary),
            Figures(reward_figures({n: pairs for n, (_, pairs) in records.items()})[:1]),
        ]),
        Section("At equal budgets", "budget", [_budget(summary["budget"])]),
        Section("Token by token", "tokens", [Prose(INSPECTOR), inspector(tokens)]),
        Section("Reward models", "reward-models", _reward_models(summary)),
        Section("Goal-conditioned", "goal", _goal(folder, summary["goal"], sources)),
        Section("Training", "training", _training(folder, sources)),
        Section("Completions", "completions", [
            samples({name: rows for name, (rows, _) in records.items()}, {}),
        ]),
    ]
    sections.append(Section("Settings", "settings", [
        Prose(f"Fingerprint of all that this page shows: {sources.fingerprint}."),
        Settings(flat(summary["config"]) | flat(summary["versions"], "versions"), "Settings"),
        Settings({str(Path(name).relative_to(folder)): digest
                  for name, digest in sources.digests.items()},
                 "Files read, with the first digits of their SHA-256"),
    ]))
    place = folder / "report.html"
    write_page(
        place, "Steering a flawed policy with reward models", lead, sections,
        footer=f"Seed {summary['config']['seed']}, {summary['seconds']:.0f} s.",
    )
    return place


def _tiles(summary: dict[str, Any]) -> Tiles:
    methods, goal = summary["methods"], summary["goal"]
    return Tiles([
        Tile("policy alone", f"{methods['none']['accuracy']:.1%}", "right answers, sampled"),
        Tile(
            "FaRMA", f"{methods['farma']['accuracy']:.1%}", "right answers at "
            f"{methods['farma']['rm_calls_per_token']:g} call of a reward model a token",
        ),
        Tile(
            "plain reward model", f"{summary['reward_models']['plain']['auroc']:.3f}",
            f"AUROC on {summary['config']['fresh']:,} fresh solutions",
        ),
        Tile(
            "votes, filtered", f"{goal['vote_accuracy_filtered']:.1%}",
            f"against {goal['vote_accuracy']:.1%}, with {goal['tokens_saved']:.1%} of the tokens "
            "saved",
        ),
    ])


def _methods(methods: dict[str, Any], summary: dict[str, Any]) -> list[Block]:
    weights = ", ".join(f"{name} {weight:g}" for name, weight in summary["weights"].items())
    names = list(methods)
    return [
        Prose(
            "The policy learned from text that gets a fixed set of facts wrong more often than "
            "right, so a lower temperature makes it worse, not better. The untrained FaRMA head is "
            "the language-model head itself: adding its rewards only sharpens the policy, and "
            "whatever FaRMA gains must be gained beyond that row."
        ),
        Figures([
            Figure(
                bars(
                    names, [methods[name]["accuracy"] for name in names],
                    [1.96 * methods[name].get("accuracy_stderr", 0.0) for name in names],
                    x_label="share of right answers (bars: 95 %)",
                    reference=methods["none"]["accuracy"], highlight=("farma",),
                ),
                "Share of right answers",
                "True accuracy, by the checker. The dashed line is plain sampling.",
            ),
            Figure(
                scatter(
                    [
                        Point(
                            name, 1e3 * methods[name]["seconds_per_token"],
                            methods[name]["reward"], methods[name].get("reward_stderr", 0.0),
                        )
                        for name in names
                    ],
                    x_label="milliseconds per generated token",
                    y_label="mean reward (plain model)", log_x=True,
                ),
                "What a unit of reward costs", "Mean reward against time per token.",
            ),
        ]),
        Table(
            f"{methods['none']['count']:g} test questions. Reward is the plain model's, ± standard "
            f"error; calls and time per generated token. Weights (of cards the reward target) "
            f"chosen on other questions: {weights}. cards, speculative rejection and best-of-n ask "
            "the plain model, goal_filter votes over what stays near the goal state.",
            METHOD_COLUMNS, method_rows(methods), frozenset({"farma"}),
        ),
        *_overoptimised(methods),
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


def _overoptimised(methods: dict[str, Any]) -> list[Block]:
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


def _reward_models(summary: dict[str, Any]) -> list[Block]:
    return [
        Table(
            f"Ranking right above wrong on {summary['config']['fresh']} fresh solutions of the "
            "policy.", AUROC_COLUMNS, auroc_rows(summary["reward_models"]),
        )
    ]


def _goal(folder: Path, goal: dict[str, Any], sources: Sources) -> list[Block]:
    metrics = {
        label: sources.json(folder / "goal" / name / "metrics.json")[BENCHMARK]
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
        *benchmark_blocks(metrics),
    ]


def _training(folder: Path, sources: Sources) -> list[Block]:
    runs = {
        name: [row for _, row in sources.lines(folder / "reward_models" / name / "metrics.jsonl")]
        for name in ("plain", "goal", "pargs", "genarm", "farma")
    }
    return [
        Prose(
            "PARGS ranks prefixes, many of which the two responses share: those tie and count one "
            "half."
        ),
        Figures(training_figures(runs, ("accuracy", "loss", "constraint_violation"))),
    ]
