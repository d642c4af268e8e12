"""Whether two answers are equal as mathematics, by ``math-verify``."""

import logging
import re
import threading
from typing import Any

WORDS = re.compile(r"[^\W\d_]{3,}(?:[ -][^\W\d_]+)*|[A-Z]{2,}|[A-Za-z]+ and [A-Za-z]+")
_BASE = re.compile(r"[0-9]+_[0-9]+")
_EXPLODING = re.compile(r"\^.*\^|\^\{?-?[0-9]{4,}|[0-9]{4,}\s*!|!\s*\)?\s*!")
# What math-verify must have read where it finds a number.
_NUMERIC = re.compile(
    r"(?:[0-9.,+\-*/^!(){}\[\]_%| ]|\\(?:[dt]?frac|sqrt|pi|cdot|times|div|binom|log|ln|sin|cos|tan|"
    r"exp|left|right|infty|le|ge|pm|mp|lfloor|rfloor|lceil|rceil)(?![A-Za-z])|e|i)+"
)
# Letters that stand for numbers, by sympy's names.
_CONSTANTS = {"i": "I", "e": "E"}
_LONGEST_MATHEMATICS = 400
# Digits that numbers are computed to, and how far apart, as a share, ones that round alike may be.
_DIGITS, _APART = 30, 1e-3


def same_mathematics(given: str, expected: str) -> bool:
    """Compare with math-verify, which raises, logs and may take long on odd input."""
    # As mathematics a word is a product of letters, equal to any anagram, and a base is dropped.
    words = WORDS.fullmatch(given) or WORDS.fullmatch(expected)
    bases = _BASE.fullmatch(given) and _BASE.fullmatch(expected)
    if words or bases or ("=" in given) != ("=" in expected):
        return False
    # Its timeouts are signals, which only the main thread gets.
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
    """Whether two numbers are of one size. math-verify rounds to six decimals, where all small
    numbers are 0, and to the precision of a computer's arithmetic, where terms vanish."""
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
    """Spellings that LaTeX does not have."""
    clean = re.sub(r"(?<!\\)\b(sqrt|log|ln|sin|cos|tan|pi)\b", r"\\\1", clean)
    clean = re.sub(r"\\sqrt\(([^()]*)\)", r"\\sqrt{\1}", clean)
    clean = re.sub(r"([0-9]+)/([0-9]+)(?=\s*\\pi)", r"\\frac{\1}{\2}", clean)
    return clean.replace("**", "^")


def _checked(parsed: list[Any], clean: str) -> list[Any]:
    """What math-verify found, unless that is a number in an answer that is more than a number: what
    it cannot read it leaves out. Imaginary unit and Euler's number are read as such."""
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
