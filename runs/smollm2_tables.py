"""Tables of the two studies on SmolLM2, from the files that readme_tables.py names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Content = Mapping[str, Any]

# Methods of study A in the order of its tables. The weight at which swept methods are shown was
# fixed before any result was seen.
GUIDANCE = (
    "none", "none T=0.5", "none greedy", "untrained head", "best of n", "args", "pargs", "genarm",
    "farma", "distilled", "cards",
)
WEIGHT = "1"
# Methods of the README's table.
# Plan of study B → its name in the README.
PLANS = {
    "baseline": "Bradley-Terry", "goal": "goal-conditioned",
    "published": "goal-conditioned, published form",
}


def guidance(found: Content) -> str:
    """Study A: figures of methods over seeds, from ``rewardsteer evaluate runs``."""
    return (
        f"`make study-a SEED=0` and on, {len(found['runs'])} seeds, {found['intervals']}. "
        "Judge: a Bradley-Terry reward model of other pairs; ±: standard deviation over seeds. "
        f"{_accuracies(found)}\n\n"
        + _methods(found, GUIDANCE)
    )


def _methods(found: Content, names: Sequence[str]) -> str:
    methods = found["methods"]
    rows = []
    for name in names:
        label = next((one for one in (name, f"{name} w={WEIGHT}") if one in methods), None)
        if label is None:
            continue
        own = methods[label]
        rows.append([
            name, f"{own['reward']:.2f} ± {own['reward_spread']:.2f}", interval_of(own),
            f"{own['rm_calls_per_token']:.2f}", f"{1e3 * own['seconds_per_token']:.0f}",
        ])
    return compact(["method", "reward", "gain, 95 %", "RM calls per token", "ms per token"], rows)


def _accuracies(found: Content) -> str:
    """How well the reward models rank held-out pairs."""
    own = found["accuracy"]
    shown = {"judge": "the judge", "bt": "Bradley-Terry", "pargs": "PARGS", "farma": "FaRMA"}
    return "Accuracy on held-out pairs: " + ", ".join(
        f"{name} {_spread(own[key])}" for key, name in shown.items()
    ) + "."


def guidance_all(found: Content) -> str:
    """Study A: every row of ``rewardsteer evaluate runs``."""
    rows = [
        [
            label, f"{own['reward']:.2f} ± {own['reward_spread']:.2f}", interval_of(own),
            f"{own['reward_gain_p']:.3f}" if "reward_gain_p" in own else "", *(
                f"{own[key]:.2f}" for key in
                ("rm_calls_per_token", "lm_tokens_per_token", "rm_tokens_per_token")
            ), f"{1e3 * own['seconds_per_token']:.0f}", f"{own['distinct_2']:.2f}",
        ]
        for label, own in found["methods"].items()
    ]
    return (
        f"{len(found['runs'])} seeds, {found['intervals']}. p-values are adjusted by Holm's "
        "method for the number of methods. Counts are per new token of the response.\n\n"
        + compact(
            ["method", "reward", "gain, 95 %", "p", "RM calls", "LM tokens", "RM tokens",
             "ms per token", "distinct bigrams"], rows)
    )


def interval_of(
    own: Mapping[str, float], name: str = "reward_gain", digits: int = 2
) -> str:
    """A gain with its interval, or alone where it has none; "" where there is no gain."""
    if f"{name}_low" not in own:
        return f"{own[name]:+.{digits}f}" if own.get(name) else ""
    return f"{own[f'{name}_low']:+.{digits}f}…{own[f'{name}_high']:+.{digits}f}"


def solutions(found: Content) -> str:
    """Study B: AUROC and best of n over seeds, from ``runs/summarise_goal.py --write``."""
    blocks = []
    for name, own in found["benchmarks"].items():
        rows = [
            [
                _named(plan), _spread(figures.get("auroc", ())),
                interval_of(figures, "gain_mean", 3), *(
                    _spread(figures.get(key, ())) for key in
                    ("auroc_at_80", "within_source", "within_question", "best_of_accuracy")
                ),
            ]
            for plan, figures in own["plans"].items()
        ]
        rows += [
            [f"*{control} alone*", _spread(own["controls"][control]), "", "", "", "", ""]
            for control in ("source", "length") if control in own["controls"]
        ]
        rows.append(["*majority vote*", "", "", "", "", "", _spread(own["majority_accuracy"])])
        blocks.append(f"**{name}** ({own['questions']} questions)\n\n" + compact(
            ["model", "AUROC", "gain, 95 %", "at 80 %", "within source", "within question",
             "best of n"], rows))
    return (
        f"`make study-b SEED=0` and on: {found['base']}, {found['pairs']:,} training pairs, "
        f"{found['seeds']} seeds with questions of their own; "
        "lowest and highest in brackets. Gain: over the Bradley-Terry model's reward, "
        "Student's interval over seeds.\n\n" + "\n\n".join(blocks)
    )


def solutions_short(found: Content) -> str:
    """Study B on held-out questions of the training's benchmark, for the README."""
    own = found["benchmarks"]["gsm8k"]
    rows = [
        [_named(plan), _range(figures.get("auroc", ())), _range(figures.get("within_source", ()))]
        for plan, figures in own["plans"].items()
    ]
    rows.append(["*source alone*", _range(own["controls"]["source"]), ""])
    return (
        f"`make study-b`: {found['base']}, {found['pairs']:,} pairs; AUROC on "
        f"{own['questions']} held-out questions, {found['seeds']} seeds.\n\n"
        + compact(["model", "AUROC", "within source"], rows)
    )


def _range(values: Sequence[float]) -> str:
    """The lowest and highest of several seeds."""
    return f"{min(values):.3f}–{max(values):.3f}" if values else ""


def _named(plan: str) -> str:
    name, *signal = plan.split(", ")
    return ", ".join([PLANS.get(name, name), *signal])


def _spread(values: Sequence[float]) -> str:
    """Mean, and the lowest and highest of several seeds."""
    if not values:
        return ""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({_range(values)})"


def compact(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table without spaces around its cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"|{'|'.join(line)}|" for line in lines)
