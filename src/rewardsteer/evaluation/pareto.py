"""The Pareto set: choices that no other beats in both value and cost."""

from collections.abc import Mapping


def pareto(choices: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the choices that no other dominates, by increasing cost.

    One choice dominates another when it costs no more, is worth no less, and is better in one of
    the two. Equal choices do not dominate each other.

    Args:
        choices: name → (cost, value): less cost and more value are better.
    """
    kept: list[str] = []
    best = float("-inf")
    order = sorted(choices, key=lambda name: (choices[name][0], -choices[name][1]))
    for name in order:
        cost, value = choices[name]
        if value > best or (kept and (cost, value) == choices[kept[-1]]):
            kept.append(name)
            best = value
    return kept
