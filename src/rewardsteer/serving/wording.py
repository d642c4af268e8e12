"""Errors of requests in the API's own words: the field, what was expected, what came.

No torch here.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from rewardsteer.faults import Language, faults
from rewardsteer.registry import nearest
from rewardsteer.serving.fields import refusal

# Number of characters of a text that an error quotes.
_SHOWN = 40


def told(
    errors: Sequence[Any], body: Any, known: Sequence[str] = ()
) -> tuple[str, str | None]:
    """One sentence and the field it is about.

    Args:
        errors: pydantic's, their locations without the leading ``body``.
        body: what was sent.
        known: names of fields, one of which is suggested for an unknown one.
    """
    fault = max(faults(errors, body, JSON), key=lambda one: len(one.path))
    name = fault.name or None
    if "extra_forbidden" in fault.kinds:
        last = str(fault.path[-1])
        message = refusal(last) or (
            f"There is no field {last!r}.{nearest(last, sorted(known))}"
        )
        return (message if len(fault.path) == 1 else f"{name}: {message}"), name
    if "missing" in fault.kinds:
        return f"{name}: this field is required.", name
    sentence = fault.sentence
    if name is None:
        whole = isinstance(body, dict)
        return (sentence[0].upper() + sentence[1:] if whole else f"The body: {sentence}"), None
    return f"{name}: {sentence}", name


def _show(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN and value.isprintable() else "a string"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:.6g}" if isinstance(value, float) else str(value)[:_SHOWN]
    return "an object" if isinstance(value, dict) else "an array"


JSON = Language(MappingProxyType({
    "text": "a string", "list": "an array", "mapping": "an object", "whole": "an integer",
    "smaller": "a smaller integer", "number": "a number", "finite": "a finite number",
    "truth": "true or false", "null": "null",
}), _show)
