"""The demo's report page, from its result files alone."""

from pathlib import Path
from typing import Any

from rewardsteer.demo.goal import BENCHMARK
from rewardsteer.outputs import file_name
from rewardsteer.reports.comparison import reward_figures, samples
from rewardsteer.reports.correctness import benchmark_blocks
from rewardsteer.reports.inspector import inspector
from rewardsteer.reports.page import write_page
from rewardsteer.reports.pairs import pair_blocks
from rewardsteer.reports.plots import intervals, paths
from rewardsteer.reports.plotted import Point, Spread
from rewardsteer.reports.results import flat
from rewardsteer.reports.runs import INSPECTOR
from rewardsteer.reports.sections import (
    Block,
    Figure,
    Figures,
    Folded,
    Prose,
    Section,
    Settings,
    Table,
    Tile,
    Tiles,
)
from rewardsteer.reports.sources import Sources, load_inspections, load_records, load_responses
from rewardsteer.reports.tables import (
    AUROC_COLUMNS,
    METHOD_COLUMNS,
    METHOD_FURTHER,
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
        f"A small policy with systematic errors has an accuracy of "
        f"{methods['none']['accuracy']:.0%} with sampling and "
        f"{methods['none greedy']['accuracy']:.0%} with greedy decoding. Guided by FaRMA, with one "
        f"call of a reward model per token, it has {methods['farma']['accuracy']:.0%}. All "
        f"results are of one run, seed {summary['config']['seed']}; intervals do not include the "
        "variation between runs."
    )
    places = {name: folder / "comparison" / "test" / file_name(name) for name in methods}
    records = {name: load_records(place, sources) for name, place in places.items()}
    outcomes = {name: rows for name, (_, rows) in records.items()}
    tokens = load_inspections(folder / "inspections.jsonl", sources)
    sections = [
        Section("At a glance", "overview", [_tiles(summary)]),
        Section("Methods", "methods", [
            *_methods(methods, summary),
            *pair_blocks(outcomes, lambda ids: load_responses(places, ids)),
            Folded("Distributions", [
                Figures(reward_figures({name: outcomes[name] for name in _SHOWN})[:1]),
            ]),
        ]),
        Section("At equal budgets", "budget", [_budget(summary["budget"])]),
        Section("Token by token", "tokens", [Prose(INSPECTOR), inspector(tokens)]),
        Section("Reward models", "reward-models", _reward_models(summary)),
        Section("Goal-conditioned", "goal", _goal(folder, summary["goal"], sources)),
        Section("Training", "training", _training(folder, sources)),
        Section("Completions", "completions", [
            samples({name: records[name][0] for name in _SHOWN}, {}),
        ]),
    ]
    sections.append(Section("Settings", "settings", [
        Prose(f"Fingerprint of all files behind this page: {sources.fingerprint}."),
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
        Tile("policy alone", f"{methods['none']['accuracy']:.1%}", "accuracy, sampled"),
        Tile(
            "FaRMA", f"{methods['farma']['accuracy']:.1%}", "accuracy at "
            f"{methods['farma']['rm_calls_per_token']:g} call of a reward model per token",
        ),
        Tile(
            "Bradley-Terry reward model", f"{summary['reward_models']['plain']['auroc']:.3f}",
            f"AUROC on {summary['config']['fresh']:,} new solutions",
        ),
        Tile(
            "filtered vote", f"{goal['vote_accuracy_filtered']:.1%}",
            f"against {goal['vote_accuracy']:.1%} unfiltered and {goal['best_of_accuracy']:.1%} "
            f"for best of n by the same model; {_tokens(goal['tokens_saved_net'])}",
        ),
    ])


def _tokens(saved: float) -> str:
    """What a filter saves when the reward model's own tokens are counted."""
    more = "fewer" if saved > 0 else "more"
    return f"{abs(saved):.0%} {more} tokens than the unfiltered vote, the reward model's included"


def _methods(methods: dict[str, Any], summary: dict[str, Any]) -> list[Block]:
    weights = ", ".join(f"{name} {weight:g}" for name, weight in summary["weights"].items())
    names = list(methods)
    return [
        Prose(
            "The policy was trained on text that gets a fixed set of facts wrong more often than "
            "right, so a lower temperature lowers its accuracy. The untrained FaRMA head is a "
            "control: it is the language-model head, and adding its output only sharpens the "
            "policy."
        ),
        Figures([
            Figure(
                intervals(
                    sorted(names, key=lambda name: -methods[name]["accuracy"]),
                    {"": {name: Spread.of(methods[name], "accuracy") for name in names}},
                    x_label="accuracy", reference=methods["none"]["accuracy"],
                ),
                "Accuracy by method",
                "Measured by the checker, with 95 % intervals. The dashed line is plain sampling.",
            ),
            Figure(
                paths(
                    [[Point(
                        name, 1e3 * methods[name]["seconds_per_token"],
                        *Spread.of(methods[name], "reward")[:3],
                    )] for name in names],
                    x_label="milliseconds per generated token",
                    y_label="mean reward (Bradley-Terry)", log_x=True, frontier=True,
                ),
                "Reward and time",
                "Mean reward with 95 % intervals against milliseconds per token. Bold: no other "
                "method is better in both.",
            ),
        ]),
        Table(
            f"{methods['none']['count']:g} test questions. Rewards are those of the Bradley-"
            "Terry model, ± standard error; calls and time are per generated token. Weights (for "
            f"cards the reward target) were chosen on other questions: {weights}. cards, "
            "speculative rejection, args and best-of-n use the Bradley-Terry model, which also "
            "judges here, so part of their gain in reward comes from exploiting its errors. "
            "goal_filter votes over the solutions that stay similar to the goal state; its "
            "threshold was chosen by labels, the weights of the others by reward.",
            METHOD_COLUMNS, method_rows(methods), frozenset({"none"}), METHOD_FURTHER,
        ),
        *_new_questions(methods),
        *_overoptimised(methods),
    ]


def _new_questions(methods: dict[str, Any]) -> list[Block]:
    """Accuracy on questions that nothing was trained or chosen on; older files have none."""
    count = next(iter(methods.values())).get("new_questions", 0)
    if not count:
        return []
    return [Table(
        f"{count:g} of the test questions occur neither in the training pairs nor among the "
        "questions on which weights and the threshold were chosen. They are longer than the "
        "others, because there are too few short questions to leave any out.",
        ("method", "accuracy, all questions (95 %)", "accuracy, these questions (95 %)"),
        [
            [name, *(
                between(figures, one) for one in ("accuracy", "accuracy_new")
            )]
            for name, figures in methods.items()
        ],
        frozenset({"none"}),
    )]


def _budget(methods: dict[str, Any]) -> Table:
    return Table(
        "The same questions when every method may process as many tokens as best-of-n (policy and "
        "reward model together; tokens of a model of another size count in proportion). A method "
        "draws as many responses as the budget allows and keeps the one with the highest reward "
        "of its own reward model. goal_filter and speculative rejection draw several samples per "
        "response. Plain sampling has no reward model to choose with. The filter's threshold was "
        "chosen by labels, the weights of the others by reward.",
        ("method", "accuracy (95 %)", "responses drawn", "tokens per question"),
        [
            [
                name, between(figures, "accuracy"),
                f"{figures['draws']:.0f}", f"{figures['equivalent_tokens']:.0f}",
            ]
            for name, figures in methods.items()
        ],
        frozenset({"none"}),
    )


def _overoptimised(methods: dict[str, Any]) -> list[Block]:
    """A warning for methods that gained reward and lost accuracy, if there are any."""
    names = [
        name for name, figures in methods.items()
        if figures["reward_gain"] > 0 and figures.get("accuracy_gain_high", 0) < 0
    ]
    if not names:
        return []
    return [
        Prose(
            f"Higher reward and lower accuracy: {', '.join(names)}. The weight was chosen by the "
            "reward of an imperfect model, which these methods over-optimise."
        )
    ]


def _reward_models(summary: dict[str, Any]) -> list[Block]:
    return [
        Table(
            f"Ranking of correct above incorrect solutions, {summary['config']['fresh']} new "
            "solutions of the policy. The last column is for questions that took no part "
            "in training or choices.",
            (*AUROC_COLUMNS, "AUROC, these questions (95 %)"),
            [
                [*row, between(figures, "auroc_new")]
                for row, figures in zip(
                    auroc_rows(summary["reward_models"]), summary["reward_models"].values(),
                    strict=True,
                )
            ],
        )
    ]


def _goal(folder: Path, goal: dict[str, Any], sources: Sources) -> list[Block]:
    metrics = {
        label: sources.json(folder / "goal" / name / "metrics.json")[BENCHMARK]
        for label, name in (("Bradley-Terry", "plain"), ("goal-conditioned", "goal"))
    }
    gain = between(goal, "auroc_gain", "{:+.3f}")
    return [
        Prose(
            "Trained on the same pairs for the same number of updates, with an additional "
            "contrastive loss on hidden states. The cosine similarity of a prefix's state to the "
            "goal state (the mean state at the end of correct solutions) is a value of the prefix. "
            f"AUROC of the reward: {goal['auroc']:.3f} against {goal['auroc_baseline']:.3f} of the "
            f"Bradley-Terry model, a difference of {gain}."
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
            "PARGS ranks prefixes. Many of them are shared by both responses; these ties count one "
            "half."
        ),
        Figures(training_figures(runs, ("accuracy", "loss", "constraint_violation"))),
    ]
