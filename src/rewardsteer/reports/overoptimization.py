"""Gold against proxy: over n of best of n, and over the weight of guidance."""

from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.reports.plots import curves
from rewardsteer.reports.sections import Block, Figure, Figures, Heading, Prose, Section, Table
from rewardsteer.reports.tables import between

Content = Mapping[str, Any]

CURVE_COLUMNS = (
    "n", "gold (95 %)", "gold gain (95 %)", "proxy gain (95 %)", "KL, measured", "KL bound",
    "prompts",
)
SECOND = "second_reward"


def curve_rows(content: Content) -> list[list[str]]:
    """One row per n under `CURVE_COLUMNS`."""
    return [
        [
            f"{row['n']:g}", _spread(row, "gold", "{:.3f}"), _spread(row, "gold_gain", "{:+.3f}"),
            _spread(row, "proxy_gain", "{:+.3f}"), f"{row['kl']:.3f}", f"{row['kl_bound']:.3f}",
            f"{row['prompts']:g}",
        ]
        for row in content["curve"]
    ]


def verdict(content: Content) -> str:
    """What the curve says about too much choosing, in a sentence."""
    if "peak" not in content:
        return "Fewer than 20 prompts with all samples: whether gold falls behind is not tested."
    peak = content["peak"]
    if peak["n"] == peak["largest"]:
        return f"Gold is highest at the largest n, {peak['n']:g}: no over-optimisation is seen."
    said = _spread(peak, "change", "{:+.3f}")
    falls = peak.get("change_high", 0.0) < 0
    return (
        f"On half of the prompts gold is highest at n = {peak['n']:g}. On the other "
        f"{peak['prompts']:g}, n = {peak['largest']:g} differs from it by {said}: "
        + ("the proxy is over-optimised." if falls else "no fall that chance could not explain.")
    )


def curve_plot(content: Content) -> str:
    """Gains of proxy and gold over one sample, against the bound of the KL divergence."""
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
    blocks: list[Block] = [Prose(
        "Best of n chooses by the proxy; gold is what counts. Means over all subsets of n of the "
        "recorded samples, which is unbiased, with 95 % intervals over prompts."
    )]
    for name, content in runs.items():
        if len(runs) > 1:
            blocks.append(Heading(name))
        blocks += [
            Figures([Figure(
                curve_plot(content), "Gold and proxy of best of n", "With 95 % bands. The two "
                "need not have one unit; gold that falls while proxy rises is over-optimisation.",
            )]),
            Prose(verdict(content)),
            Table(
                "Best of n by n. KL divergence from the policy in nats: of the recorded samples, "
                "and its bound.", CURVE_COLUMNS, curve_rows(content),
            ),
        ]
    return Section("Over-optimisation", "overoptimization", blocks)


def weight_figures(summary: Content) -> list[Figure]:
    """For each method that was run at several weights with a second judge, the gains of both
    judges over the baseline, against the weight."""
    methods, weights = summary["methods"], summary.get("weights", {})
    figures = []
    for name, labels in summary.get("sweeps", {}).items():
        known = sorted(
            (label for label in labels if label in weights and SECOND in methods[label]),
            key=lambda label: weights[label],
        )
        if len(known) < 2:
            continue
        xs, rows = [weights[label] for label in known], [methods[label] for label in known]
        both = {"judge": "reward_gain", "second judge": f"{SECOND}_gain"}
        figures.append(Figure(
            curves(
                {label: (xs, [row[figure] for row in rows]) for label, figure in both.items()},
                bands={label: _ends(rows, figure) for label, figure in both.items()},
                x_label="weight of guidance", y_label="gain over the baseline", marks=True,
                reference=0.0,
            ),
            f"Both judges by weight: {name}",
            "With 95 % bands. A judge that rises while the other falls is over-optimised.",
        ))
    return figures


def _ends(rows: Sequence[Content], name: str) -> tuple[list[float], list[float]]:
    return ([row.get(f"{name}_low", row[name]) for row in rows],
            [row.get(f"{name}_high", row[name]) for row in rows])


def _spread(figures: Content, name: str, pattern: str) -> str:
    return between(figures, name, f"{name}_low", f"{name}_high", pattern)
