"""Mathematical equality of two answers, by ``math-verify``."""

import logging
import re
import threading
from typing import Any

WORDS = re.compile(r"[^\W\d_]{3,}(?:[ -][^\W\d_]+)*|[A-Z]{2,}|[A-Za-z]+ and [A-Za-z]+")
_BASE = re.compile(r"[0-9]+_[0-9]+")
_EXPLODING = re.compile(r"\^.*\^|\^\{?-?[0-9]{4,}|[0-9]{4,}\s*!|!\s*\)?\s*!")
# The whole answer must match this where math-verify parses it as a number.
_NUMERIC = re.compile(
    r"(?:[0-9.,+\-*/^!(){}\[\]_%| ]|\\(?:[dt]?frac|sqrt|pi|cdot|times|div|binom|log|ln|sin|cos|tan|"
    r"exp|left|right|infty|le|ge|pm|mp|lfloor|rfloor|lceil|rceil)(?![A-Za-z])|e|i)+"
)
# Letters that stand for numbers, by sympy's names.
_CONSTANTS = {"i": "I", "e": "E"}
_LONGEST_MATHEMATICS = 400
# Digits of evaluation, and the largest relative difference of numbers that round to the same value.
_DIGITS, _APART = 30, 1e-3


def same_mathematics(given: str, expected: str) -> bool:
    """Compare with math-verify, which may raise, log or run for long on malformed input."""
    # math-verify parses a word as a product of letters, equal to any anagram, and drops a base.
    words = WORDS.fullmatch(given) or WORDS.fullmatch(expected)
    bases = _BASE.fullmatch(given) and _BASE.fullmatch(expected)
    if words or bases or ("=" in given) != ("=" in expected):
        return False
    # math-verify's timeouts use signals, which only the main thread receives.
    seconds = 5 if threading.current_thread() is threading.main_thread() else None
    endless = seconds is None and (_EXPLODING.search(given) or _EXPLODING.search(expected))
    if endless or max(len(given), len(expected)) > _LONGEST_MATHEMATICS:
        return False
    from math_verify import parse, verify  # type: ignore[import-untyped]
    from math_verify.utils import timeout  # type: ignore[import-untyped]

    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        ours, theirs = (
            _checked(parse(f"${_formula(one)}$", parsing_timeout=seconds), one)
            for one in (given, expected)
        )
        same = bool(verify(theirs, ours, timeout_seconds=seconds))
        return same and timeout(timeout_seconds=seconds)(_as_large)(ours, theirs)
    except Exception:  # sympy and antlr raise many unrelated kinds
        return False


def _as_large(given: list[Any], expected: list[Any]) -> bool:
    """Whether two numbers have nearly the same magnitude. math-verify rounds to six decimals, which
    makes small numbers 0, and to floating-point precision, which loses small terms."""
    import sympy  # type: ignore[import-untyped]

    values = [
        next((one for one in found if isinstance(one, sympy.Expr) and one.is_number), None)
        for found in (given, expected)
    ]
    if None in values:
        return True
    ours, theirs = (sympy.Abs(sympy.N(one, _DIGITS)) for one in values)
    return bool(abs(ours - theirs) <= _APART * max(ours, theirs))


def _formula(clean: str) -> str:
    """The answer in LaTeX where it uses plain spellings such as "sqrt(2)" or "**"."""
    clean = re.sub(r"(?<!\\)\b(sqrt|log|ln|sin|cos|tan|pi)\b", r"\\\1", clean)
    clean = re.sub(r"\\sqrt\(([^()]*)\)", r"\\sqrt{\1}", clean)
    clean = re.sub(r"([0-9]+)/([0-9]+)(?=\s*\\pi)", r"\\frac{\1}{\2}", clean)
    return clean.replace("**", "^")


def _checked(parsed: list[Any], clean: str) -> list[Any]:
    """The parsed answer, with "i" and "e" as the imaginary unit and Euler's number. Empty where the
    result is a number but the answer has more to it: math-verify omits what it cannot parse."""
    import sympy

    found = []
    for one in parsed:
        if isinstance(one, sympy.Basic):
            names = {str(symbol) for symbol in one.free_symbols}
            value = one.subs({
                symbol: getattr(sympy, _CONSTANTS[str(symbol)]) for symbol in one.free_symbols
            }) if names <= set(_CONSTANTS) else one
            if value.is_number and not _NUMERIC.fullmatch(_formula(clean)):
                return []
            found.append(value)
        else:
            found.append(one)
    return found
