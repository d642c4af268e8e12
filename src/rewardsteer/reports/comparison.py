"""Figures of ``evaluate generation``: gains and costs of methods, and their responses."""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.evaluation.distributions import by_length, histogram
from rewardsteer.outputs import file_name
from rewardsteer.records import EvalRecord
from rewardsteer.reports.frontiers import (
    AXES,
    FRONTIER_COLUMNS,
    FRONTIER_FURTHER,
    WIN_COLUMNS,
    frontier_rows,
    frontiers,
    win_rows,
)
from rewardsteer.reports.overoptimization import SECOND, weight_blocks
from rewardsteer.reports.pairs import pair_blocks
from rewardsteer.reports.plots import histograms, intervals
from rewardsteer.reports.plotted import Spread
from rewardsteer.reports.preference import length_figure
from rewardsteer.reports.results import Outcome, Run
from rewardsteer.reports.sections import (
    Answer,
    Block,
    Figure,
    Figures,
    Folded,
    Prose,
    Sample,
    Samples,
    Section,
    Table,
    run_by_run,
)
from rewardsteer.reports.sources import load_responses
from rewardsteer.reports.tables import METHOD_COLUMNS, METHOD_FURTHER, OWN_JUDGE, method_rows

_DRAWN = 6  # methods per plot: more lines cannot be distinguished


def comparison_section(runs: Sequence[Run]) -> Section | None:
    """All comparisons of decoding methods; None without any."""
    shown = [run for run in runs if run.comparison and run.comparison.get("methods")]
    if not shown:
        return None
    blocks: list[Block] = [Prose(
        "All methods answer the same prompts. Rewards of different runs are comparable only under "
        "the same reward model."
    )]
    if len(shown) > 1:
        blocks.append(Figures([_all_runs(shown)]))
    blocks += run_by_run({run.name: run for run in shown}, _of_one)
    return Section("Methods", "methods", blocks)


def _all_runs(runs: Sequence[Run]) -> Figure:
    labels = list(dict.fromkeys(
        label for run in runs for label in (run.comparison or {})["methods"]
    ))
    series = {run.name: _spreads((run.comparison or {})["methods"], "reward") for run in runs}
    return Figure(
        intervals(labels, series, x_label="mean reward"), "Mean reward by method and run",
        "With 95 % intervals.",
    )


def _spreads(methods: Mapping[str, Mapping[str, float]], name: str) -> dict[str, Spread]:
    return {label: Spread.of(one, name) for label, one in methods.items() if name in one}


def _of_one(run: Run) -> list[Block]:
    content = run.comparison or {}
    methods: Mapping[str, Mapping[str, float]] = content["methods"]
    baseline = content.get("baseline", next(iter(methods)))
    figures = [
        Figure(
            intervals(
                list(methods), {"": _spreads(methods, name)}, x_label=label,
                reference=methods[baseline].get(name),
            ),
            label.capitalize(), f"With 95 % intervals. The dashed line is {baseline}.",
        )
        for name, label in (
            ("accuracy", "accuracy"), ("reward", "mean reward"), (SECOND, "second judge's reward")
        )
        if any(name in one for one in methods.values())
    ]
    figures += _against_costs(content)
    blocks: list[Block] = [
        Figures(figures),
        Table(
            f"Mean reward ± standard error; paired difference to {baseline} with its "
            "interval; calls, tokens and time per generated token."
            + (OWN_JUDGE if content.get("judged_by_guide") else ""),
            METHOD_COLUMNS, method_rows(methods, marked=content.get("judged_by_guide", ())),
            frozenset({baseline}), METHOD_FURTHER,
        ),
    ]
    if wins := win_rows(methods):
        blocks.append(Table(
            f"Win rate against {baseline}, judged by a language model. A tie counts one half; "
            "answers without a verdict are left out. At equal lengths: by a logistic regression "
            "with the difference in length.",
            WIN_COLUMNS, wins,
        ))
    blocks += weight_blocks(content)
    places = {label: run.folder / file_name(label) for label in run.outcomes}
    blocks += pair_blocks(run.outcomes, lambda ids: load_responses(places, ids))
    more: list[Block] = [Table(
        "Reward and cost, with 95 % intervals.",
        FRONTIER_COLUMNS, frontier_rows(methods), frozenset({baseline}), FRONTIER_FURTHER,
    )]
    if distributions := reward_figures(run.outcomes):
        more.insert(0, Figures(distributions))
    return [*blocks, Folded("Distributions and all costs", more)]


def _against_costs(content: Mapping[str, Any]) -> list[Figure]:
    return [
        Figure(
            svg, f"Reward against {AXES[name].label}",
            "With 95 % intervals. Lines join the weights of one method. Bold: no other method is "
            "better in both.",
        )
        for name, svg in frontiers(content).items()
    ]


def reward_figures(outcomes: Mapping[str, Sequence[Outcome]]) -> list[Figure]:
    """Plots of some methods: a histogram of rewards, and rewards by length."""
    some = {name: rows for name, rows in list(outcomes.items())[:_DRAWN] if rows}
    if not some:
        return []
    rewards = {name: [row.metrics["reward"] for row in rows] for name, rows in some.items()}
    made = histogram(rewards, 30)
    lengths = {
        name: by_length([row.tokens for row in rows], rewards[name]) for name, rows in some.items()
    }
    return [
        Figure(
            histograms(made["edges"], made["counts"], x_label="reward"), "Rewards of the responses",
            "Each method's share of its responses per bin."
            + (f" The first {_DRAWN} methods." if len(outcomes) > _DRAWN else ""),
        ),
        length_figure(lengths),
    ]


def samples_section(runs: Sequence[Run]) -> Section | None:
    """Responses of all methods side by side, run by run; None without any."""
    shown = {run.name: run.records for run in runs if any(run.records.values())}
    if not shown:
        return None
    return Section("Completions", "completions", run_by_run(
        shown, lambda records: [samples(records, {})]
    ))


def samples(records: Mapping[str, Sequence[EvalRecord]], names: Mapping[str, str]) -> Samples:
    """Responses side by side, for the prompts that all methods answered.

    Args:
        records: of each method, in the order of the prompts.
        names: what to call a method, where that is not its label.
    """
    methods = [label for label, rows in records.items() if rows]
    by_id = {label: {row.generation.id: row for row in records[label]} for label in methods}
    shared = [
        key for key in by_id[methods[0]] if all(key in by_id[label] for label in methods)
    ]
    found = []
    for key in shared:
        rows = [by_id[label][key] for label in methods]
        found.append(Sample(rows[0].generation.prompt, [
            _answer(method, row) for method, row in enumerate(rows)
        ]))
    return Samples(
        f"The first {len(shared)} prompts with the response of each method and its reward.",
        [names.get(label, label) for label in methods], found,
    )


def _answer(method: int, row: EvalRecord) -> Answer:
    accuracy = row.metrics.get("accuracy")
    return Answer(
        method, row.generation.completion, row.metrics["reward"],
        None if accuracy is None else accuracy >= 0.5,
    )
