"""Gold against proxy: over n of best of n, and over the weight of guidance."""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.evaluation.overoptimization import gold_of
from rewardsteer.reports.plots import curves
from rewardsteer.reports.sections import Block, Figure, Figures, Prose, Section, Table, run_by_run
from rewardsteer.reports.tables import between

Content = Mapping[str, Any]

CURVE_COLUMNS = (
    "n", "gold (95 %)", "gold gain (95 %)", "proxy gain (95 %)", "KL, measured", "KL bound",
    "prompts",
)
WEIGHT_COLUMNS = (
    "method", "weight", "gold (95 %)", "gold gain (95 %)", "proxy gain (95 %)", "KL (95 %)",
)
SECOND = "second_reward"
_GOLD = {SECOND: "second judge's reward", "accuracy": "accuracy"}


def curve_rows(content: Content) -> list[list[str]]:
    """One row per n under `CURVE_COLUMNS`."""
    return [
        [
            f"{row['n']:g}", between(row, "gold"), between(row, "gold_gain", "{:+.3f}"),
            between(row, "proxy_gain", "{:+.3f}"), f"{row['kl']:.3f}", f"{row['kl_bound']:.3f}",
            f"{row['prompts']:g}",
        ]
        for row in content["curve"]
    ]


def verdict(content: Content) -> str:
    """A sentence on whether the curve shows over-optimisation by a large n."""
    return _told(content.get("peak"), "n")


def _told(peak: Content | None, name: str) -> str:
    if peak is None:
        return "Half of the prompts are fewer than ten, too few to test for over-optimisation."
    best, largest = peak[name], peak["largest"]
    if best == largest:
        return f"Gold is highest at the largest {name}, {best:g}: no over-optimisation is seen."
    said = between(peak, "change", "{:+.3f}")
    falls = peak.get("change_high", 0.0) < 0
    return (
        f"On half of the prompts gold is highest at {name} = {best:g}. On the other "
        f"{peak['prompts']:g}, {name} = {largest:g} differs from it by {said}: "
        + ("the proxy is over-optimised." if falls else "no significant fall.")
    )


def curve_plot(content: Content) -> str:
    """Gains of proxy and gold over one sample, against the upper bound of the KL divergence."""
    rows = content["curve"]
    xs = [row["kl_bound"] for row in rows]
    names = {"proxy": "proxy (chooses)", "gold": "gold (counts)"}
    return curves(
        {label: (xs, [row[f"{name}_gain"] for row in rows]) for name, label in names.items()},
        bands={label: _ends(rows, f"{name}_gain") for name, label in names.items()},
        x_label="KL bound of best of n, nats: log n − (n − 1)/n", y_label="gain over one sample",
        marks=True, reference=0.0,
    )


def overoptimization_section(runs: Mapping[str, Content]) -> Section | None:
    """Best of n under a proxy and a gold value, run by run; None without any."""
    if not runs:
        return None
    return Section("Over-optimisation", "overoptimization", [
        Prose(
            "Best of n chooses by the proxy, and gold measures the choice. Means over all subsets "
            "of n of the recorded samples, which is unbiased, with 95 % intervals over prompts."
        ),
        *run_by_run(runs, _of_one),
    ])


def _of_one(content: Content) -> list[Block]:
    return [
        Figures([Figure(
            curve_plot(content), "Gold and proxy of best of n", "With 95 % bands. The two "
            "may have different units. Gold that falls while proxy rises is over-optimisation.",
        )]),
        Prose(verdict(content)),
        Table(
            "Best of n by n. KL divergence from the policy in nats: of the recorded samples, "
            "and its bound.", CURVE_COLUMNS, curve_rows(content),
        ),
    ]


def weight_rows(summary: Content) -> list[list[str]]:
    """One row per method and weight under `WEIGHT_COLUMNS`, for methods with several weights and a
    gold value in addition to the judge's reward."""
    return [
        [
            label, f"{summary['weights'][label]:g}", between(figures, gold),
            *(between(figures, gain, "{:+.3f}") for gain in (f"{gold}_gain", "reward_gain")),
            between(figures, "kl"),
        ]
        for labels, gold in _swept(summary).values()
        for label in labels for figures in [summary["methods"][label]]
    ]


def weight_verdicts(summary: Content) -> list[str]:
    """For each sweep of weights, a sentence on whether it shows over-optimisation."""
    if "peaks" not in summary:
        return []  # figures over several runs have no peaks
    return [f"{name}: {_told(summary['peaks'].get(name), 'weight')}" for name in _swept(summary)]


def weight_blocks(summary: Content) -> list[Block]:
    """Plots of gold and proxy against weight and KL divergence for methods with several weights,
    with sentences and a table; empty without a gold value."""
    rows = weight_rows(summary)
    if not rows:
        return []
    return [
        Figures([
            figure for name, (labels, gold) in _swept(summary).items()
            for figure in _weight_figures(name, labels, gold, summary)
        ]),
        *(Prose(text) for text in weight_verdicts(summary)),
        Table(
            "By weight of guidance. Proxy is the judge's reward, gold is "
            f"{' or '.join(dict.fromkeys(_GOLD[gold] for _, gold in _swept(summary).values()))}. "
            "KL divergence from the policy in nats per response.", WEIGHT_COLUMNS, rows,
        ),
    ]


def _swept(summary: Content) -> dict[str, tuple[list[str], str]]:
    """Sweep → its labels by rising weight, and the name of its gold metric."""
    methods, weights = summary["methods"], summary.get("weights", {})
    found = {}
    for name, labels in summary.get("sweeps", {}).items():
        known = sorted((one for one in labels if one in weights), key=lambda one: weights[one])
        gold = gold_of(methods[known[0]]) if len(known) > 1 else None
        if gold is not None:
            found[name] = known, gold
    return found


def _weight_figures(
    name: str, labels: Sequence[str], gold: str, summary: Content
) -> list[Figure]:
    rows = [summary["methods"][label] for label in labels]
    axes = {"weight of guidance": [summary["weights"][label] for label in labels]}
    if all("kl" in row for row in rows):
        axes["KL divergence from the policy, nats per response"] = [row["kl"] for row in rows]
    both = {"judge (proxy)": "reward_gain", f"{_GOLD[gold]} (gold)": f"{gold}_gain"}
    return [
        Figure(
            curves(
                # The baseline's gain over itself is 0 where it is missing.
                {label: (xs, [row.get(gain, 0.0) for row in rows]) for label, gain in both.items()},
                bands={label: _ends(rows, gain) for label, gain in both.items()},
                x_label=x_label, y_label="gain over the baseline", marks=True, reference=0.0,
            ),
            f"Gold and proxy by {x_label.split(',')[0]}: {name}",
            "With 95 % bands. Gold that falls while proxy rises is over-optimisation.",
        )
        for x_label, xs in axes.items()
    ]


def _ends(rows: Sequence[Content], name: str) -> tuple[list[float], list[float]]:
    return ([row.get(f"{name}_low", row.get(name, 0.0)) for row in rows],
            [row.get(f"{name}_high", row.get(name, 0.0)) for row in rows])

