"""What is wrong with a request, in the API's own words: the field, what was expected, what came.

No torch here.
"""

from collections.abc import Sequence
from typing import Any

from rewardsteer.registry import nearest
from rewardsteer.serving.fields import refusal

# pydantic's kinds of errors, as JSON knows the types.
_EXPECTED = {
    "string_type": "a string", "list_type": "an array", "dict_type": "an object",
    "model_type": "an object", "model_attributes_type": "an object", "int_type": "an integer",
    "int_parsing": "an integer", "int_from_float": "an integer", "float_type": "a number",
    "float_parsing": "a number", "bool_type": "true or false", "bool_parsing": "true or false",
    "finite_number": "a finite number", "int_parsing_size": "a smaller integer",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
}
# Text of so many characters is told back; more says nothing more.
_SHOWN = 40


def told(
    errors: Sequence[Any], body: Any, known: Sequence[str] = ()
) -> tuple[str, str | None]:
    """One sentence and the field it is about.

    Args:
        errors: pydantic's, without ``body`` at the beginning of their places.
        body: what was sent.
        known: names of fields, one of which is suggested for an unknown one.
    """
    placed = [(_place(error["loc"], body), error) for error in errors]
    # Of all forms that a field may have, the one that fits furthest is meant.
    deepest = max(len(path) for path, _ in placed)
    path = next(path for path, _ in placed if len(path) == deepest)
    several = [error for one, error in placed if one == path]
    name = ".".join(map(str, path)) or None
    came = _value(body, path)
    kinds = [error["type"] for error in several]
    if "extra_forbidden" in kinds:
        last = str(path[-1])
        message = refusal(last) or (
            f"There is no field {last!r}.{nearest(last, sorted(known))}"
        )
        return (message if len(path) == 1 else f"{name}: {message}"), name
    if "missing" in kinds:
        return f"{name}: this field is required.", name
    exact = [error for error in several if error["type"] not in _EXPECTED]
    if exact:
        sentence = _sentence(exact[0], came)
        return (f"{name}: {sentence}" if name else sentence[0].upper() + sentence[1:]), name
    expected = list(dict.fromkeys(_EXPECTED[kind] for kind in kinds))
    return f"{name or 'The body'}: expected {' or '.join(expected)}, got {_show(came)}.", name


def _sentence(error: Any, came: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"expected {words} {_show(context[bound])}, got {_show(came)}."
    if kind == "literal_error":
        return f"expected {context['expected']}, got {_show(came)}."
    if kind == "too_short":
        return f"expected at least {context['min_length']} of them, got {len(came)}."
    if kind == "string_too_short":
        return "expected some text, got none."
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters, got {len(came)}."
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if message.endswith(".") else message + "."


def _place(loc: Sequence[Any], body: Any) -> tuple[Any, ...]:
    """The parts of a place that are in the body; the others are names of ours."""
    path: list[Any] = []
    here = body
    for number, part in enumerate(loc):
        inside = isinstance(here, dict) and part in here
        if inside or (isinstance(here, list) and isinstance(part, int) and part < len(here)):
            here = here[part]
            path.append(part)
        elif number == len(loc) - 1 and isinstance(here, dict) and "-" not in str(part):
            # A field that is missing.
            path.append(part)
    return tuple(path)


def _value(body: Any, path: Sequence[Any]) -> Any:
    for part in path:
        if isinstance(body, dict) and part not in body:
            return None
        body = body[part]
    return body


def _show(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN and value.isprintable() else "a string"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:.6g}" if isinstance(value, float) else str(value)[:_SHOWN]
    return "an object" if isinstance(value, dict) else "an array"
