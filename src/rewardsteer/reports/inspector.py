"""The token inspector: a block of a report, or a page that requests data of a server. No torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.reports.page import STYLES, render
from rewardsteer.reports.sections import Inspector

_DIGITS = 5  # significant ones; a page holds thousands of numbers


def inspector(records: Sequence[Inspection]) -> Inspector:
    """The block that shows some inspections."""
    return Inspector([_rounded(record.model_dump(mode="json", exclude={"settings"}))
                      for record in records])


def live_page(
    methods: Sequence[str], *, default_method: str, weight: float = 1.0, temperature: float = 1.0,
    most: int = 256, needs_key: bool = False, goal: bool = False, refusal: str = "",
) -> str:
    """A page with a form and an empty inspector, which sends ``POST /v1/inspect`` to its own origin
    and shows the returned `Inspection`.

    Args:
        default_method, weight, temperature: those chosen at first, the server's settings.
        most: tokens that the server generates for an inspection at most.
        needs_key: ask for a key, which is sent as ``Authorization: Bearer`` and not stored.
        goal: whether the server has a goal state, for filters by similarity.
        refusal: why the server inspects nothing, which is shown in place of the form.
    """
    values = {
        "title": "Token inspector", "methods": methods, "default_method": default_method,
        "weight": f"{weight:g}", "temperature": f"{temperature:g}", "most": most,
        "needs_key": needs_key, "goal": goal, "refusal": refusal,
        "summary": "The reward at every token of a text, and the tokens that guidance changes.",
    }
    scripts = ("theme.js",) if refusal else ("inspector.js", "theme.js", "live.js")
    return render("live.html.j2", (*STYLES, "live.css"), scripts, values, connect="'self'")


def _rounded(value: Any) -> Any:
    """Plain values with numbers rounded; NaN and infinity become None."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return value
