"""Data of plots: figures with their intervals, and the text of their tooltips."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from rewardsteer.reports.drawing import said


class Point(NamedTuple):
    """A named point, with the ends of its interval on y where it has one."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, label: str, figures: Mapping[str, float], x: str, y: str) -> "Point":
        """A point from two figures; the interval on y is in ``y_low`` and ``y_high``, if any."""
        ends = (figures.get(f"{y}_{end}") for end in ("low", "high"))
        return cls(label, figures[x], figures[y], *ends)

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the interval on y; the value itself where there is none."""
        return (
            self.y if self.low is None else self.low, self.y if self.high is None else self.high
        )


class Spread(NamedTuple):
    """A figure with the ends of its interval; over several runs also the figure of each run, by
    the run's name, and their standard deviation."""

    value: float
    low: float
    high: float
    runs: Mapping[str, float] = MappingProxyType({})
    deviation: float | None = None

    @classmethod
    def of(cls, figures: Mapping[str, float], name: str, **more: Any) -> "Spread":
        """A spread from the figure ``name``, with ``name_low`` and ``name_high`` if present."""
        value = figures[name]
        low, high = (figures.get(f"{name}_{end}", value) for end in ("low", "high"))
        return cls(value, low, high, **more)

    def told(self, name: str, x_label: str) -> str:
        """The text of its tooltip."""
        text = described(name, {x_label: (self.value, self.low, self.high)})
        if self.deviation is None:
            return text
        return f"{text}\nstandard deviation of the runs: {said(self.deviation)}"


def bar_lengths(spreads: Iterable[tuple[float, float, float]]) -> list[list[float]]:
    """Lengths of error bars below and above, from values with the ends of their intervals."""
    found = list(spreads)
    return [[max(value - low, 0.0) for value, low, _ in found],
            [max(high - value, 0.0) for value, _, high in found]]


def described(name: str, figures: Mapping[str, tuple[float, float, float]]) -> str:
    """Text of a tooltip: the name, then a line for each figure with its interval."""
    lines = [name] if name else []
    for label, (value, low, high) in figures.items():
        tail = f" ({said(low)} to {said(high)})" if (low, high) != (value, value) else ""
        lines.append(f"{label}: {said(value)}{tail}")
    return "\n".join(lines)
