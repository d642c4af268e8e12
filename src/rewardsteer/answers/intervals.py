"""Inequalities of one variable and set memberships, written as intervals."""

import re

_BOUND = (
    r"(-?(?:[0-9]*\\sqrt\{[0-9]+\}|[0-9]*\\pi|[0-9.]+|\\frac\{[^{}]+\}\{[^{}]+\}|\\infty))"
)
_MEMBER = re.compile(r"[a-z]\s*\\in\s*(?=[(\[\\])")
_LESS, _MORE = r"(<|\\leq?(?![a-z]))", r"(>|\\geq?(?![a-z]))"
_RANGES = tuple(re.compile(pattern) for pattern in (
    rf"[a-z]\s*{_LESS}\s*{_BOUND}", rf"[a-z]\s*{_MORE}\s*{_BOUND}",
    rf"{_BOUND}\s*{_LESS}\s*[a-z]\s*{_LESS}\s*{_BOUND}",
))
_INTERVAL = re.compile(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]](?:\\cup.*)?")


def as_intervals(ours: str, theirs: str) -> tuple[str, str]:
    r"""Return both answers with "x \in [1,2]" written as "[1,2]". An inequality such as
    "1 \le x \le 2" becomes an interval where the other answer is an interval."""
    one, other = (
        _MEMBER.sub("", answer).replace("+\\infty", "\\infty") for answer in (ours, theirs)
    )
    return _interval(one, other), _interval(other, one)


def _interval(clean: str, other: str) -> str:
    if not _INTERVAL.fullmatch(other.replace(" ", "")):
        return clean
    less, more, both = (pattern.fullmatch(clean) for pattern in _RANGES)
    if both:
        low, first, second, high = both.groups()
        return f"{'(' if first == '<' else '['}{low},{high}{')' if second == '<' else ']'}"
    if less:
        return rf"(-\infty,{less.group(2)}{')' if less.group(1) == '<' else ']'}"
    if more:
        return rf"{'(' if more.group(1) == '>' else '['}{more.group(2)},\infty)"
    return clean
