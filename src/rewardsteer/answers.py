r"""Final answers of worked solutions: found in the text, compared, and turned into voting keys.

Plain numbers are compared as numbers. Everything else is compared as text with the LaTeX spellings
evened out, then as mathematics by ``math-verify``. A percentage is read as its number: "50%" is 50.
"""

import logging
import re
import threading
from decimal import Context, Decimal
from fractions import Fraction

_NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(rf"([+-]?)\s*({_NUMBER}(?:[eE][+-]?[0-9]{{1,3}})?)\s*%?")
_RATIO = re.compile(
    rf"([+-]?)(?:({_NUMBER})\s*/\s*({_NUMBER})|\\frac\{{({_NUMBER})\}}\{{({_NUMBER})\}})\s*%?"
)
# A minus after a letter, a digit or a bracket is a subtraction, not a sign.
_IN_TEXT = re.compile(
    r"(?:(?<![\w.)\]}])[-−])?\$?(?:\\[dt]?frac\{[0-9]+\}\{[0-9]+\}|"
    rf"{_NUMBER}(?:/[0-9]+(?![0-9/]))?)(?:\\?%)?"
)
_STATED = re.compile(r"\bthe\s+(?:final\s+|correct\s+)?answer\s+is\b\s*:?", re.IGNORECASE)
# "Final Answer: How many …?" repeats the question, so a line that ends so holds no answer.
_LABEL = re.compile(
    r"^[ \t*#]*(?:(?:final\s+)?answer|A)[ \t*]*:\**[ \t]*\n?(?!.*\?[ \t]*$)(.*)",
    re.IGNORECASE | re.MULTILINE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_NO_UNIT = "(?:(?:hundred|thousand|million|billion|trillion|dozen)s?|pi|sqrt|sin|cos|log|ln|and|or)"
_MEASURED = rf"(-?\s?{_NUMBER}%?)(?:\s+(?!{_NO_UNIT}\b)[A-Za-z][A-Za-z-]|\s?/\s?[A-Za-z]{{3}})"
_TEXT = r"\\(?:text|mbox|mathrm|textrm|textbf|mathbf)\s*\{([^{}]*)\}"
_SPELLINGS = tuple((re.compile(pattern), replacement) for pattern, replacement in (
    (r"[−–﹣－]", "-"),
    (r"\\(?:left|right)(?![A-Za-z])|(?<!\\)\\!|\\?[$€£]", ""),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))", r"\\frac{\1\2}{\3\4}"),
    (r"\^\s*\{?\s*\\circ\s*\}?|\\degree|°", ""),
    (rf"(?<=[0-9}}])\s*{_TEXT}(?:\^\{{?[0-9]\}}?)?\s*\.?\s*$", ""),
    (_TEXT, r"\1"),
    (r"\\(?=%)", ""),
    (r"_\{(\w)\}", r"_\1"),
    (r"(?:(?<!\\)\\[,;: ]|~|\s)+", " "),
    (r"^ ?\(([A-Za-z])\)[ .]*$", r"\1"),
    (rf"^ ?{_MEASURED}[A-Za-z/ .-]*(?:\^[0-9])?$", r"\1"),
    (r"^ | ?\.? ?$", ""),
))
_WORDS = re.compile(r"[^\W\d_]{3,}(?:[ -][^\W\d_]+)*")
_BASE = re.compile(r"[0-9]+_[0-9]+")
_EXPLODING = re.compile(r"\^.*\^|\^\{?-?[0-9]{4,}|[0-9]{4,}\s*!|!\s*\)?\s*!")


def extract_answer(text: str) -> str | None:
    r"""Return the final answer of a solution, None where there is none.

    The last ``\boxed{}`` counts first, then what follows "####", then "The answer is …", then a
    line "Answer: …" or "A: …", and at last the last number of the text.
    """
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    tails = [tail.strip().partition("\n")[0] for tail in text.split("####")[1:][-1:]]
    tails += [re.split(r"\.\s|\n", tail.strip())[0] for tail in _STATED.split(text)[1:][-1:]]
    tails += _LABEL.findall(text)[-1:]
    return next(filter(None, map(_stated, tails)), None) or _last_number(text)


def last_boxed(text: str) -> str | None:
    r"""Return what the last complete ``\boxed{}`` or ``\fbox{}`` with content holds, else None."""
    for match in reversed(list(_BOX.finditer(text))):
        rest = text[match.end():]
        inner = _braced(rest) if rest.startswith("{") else re.split(r"[$\s]", rest, maxsplit=1)[0]
        inner = inner.strip(" \t\n$")
        if inner:
            return inner
    return None


def same_answer(given: str | None, expected: str) -> bool:
    """Whether a given answer equals the expected one; odd input is simply not equal.

    Whole numbers must be the same; others may differ by one part in ten thousand, as rounded
    results do.
    """
    if given is None:
        return False
    ours, theirs = _clean(given), _clean(expected)
    if ("=" in ours) != ("=" in theirs):
        ours, theirs = _right_side(ours), _right_side(theirs)
    first, second = _number(ours), _number(theirs)
    if first is not None and second is not None:
        if first.denominator == second.denominator == 1:
            return first == second
        return abs(first - second) <= max(Fraction(1, 10**6), abs(second) / 10**4)
    if _compact(ours) == _compact(theirs):
        return bool(theirs)
    # As mathematics a word is a product of letters, equal to any anagram, and a base is dropped.
    words = _WORDS.fullmatch(ours) or _WORDS.fullmatch(theirs)
    bases = _BASE.fullmatch(ours) and _BASE.fullmatch(theirs)
    if words or bases or ("=" in ours) != ("=" in theirs):
        return False
    return _equal_mathematics(ours, theirs)


def canonical_answer(text: str | None) -> str | None:
    """Return a key under which equal answers meet in a vote; None stays None.

    Equal plain numbers share a key (to ten significant digits where they are not whole); other
    answers are evened out in spacing and LaTeX spelling only.
    """
    if text is None:
        return None
    clean = _clean(text)
    value = _number(clean)
    if value is None:
        return _compact(clean)
    if value.denominator == 1:
        return str(value.numerator)
    rounded = Context(prec=10).divide(Decimal(value.numerator), Decimal(value.denominator))
    return format(rounded.normalize(), "f")


def _braced(text: str) -> str:
    """The content of the group that opens the text, nothing where it is not closed."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[1:match.start()]
    return ""


def _stated(tail: str) -> str | None:
    """The answer in the words after "The answer is", None where they hold none."""
    clean = _clean(tail.strip(" \t*"))
    left, _, right = clean.rpartition("=")
    if left and not re.search("[A-Za-z]", left):
        clean = _clean(right)
    measured = re.match(_MEASURED, clean)
    if measured:
        return measured.group(1)
    words = len(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", clean))
    if words > 1 and _number(clean) is None:
        return _last_number(clean) or (clean if words < 5 else None)
    return clean or None


def _last_number(text: str) -> str | None:
    found = _IN_TEXT.findall(text)
    return _clean(found[-1]) if found else None


def _clean(text: str) -> str:
    """Even out LaTeX spellings and drop currency signs, degrees, units and a full stop."""
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text


def _right_side(clean: str) -> str:
    """The value in "x = 5" or "2 + 3 = 5"; other equations, as of a circle, stay whole."""
    left, _, right = clean.rpartition("=")
    named = re.fullmatch(r"\\?[A-Za-z]+(?:_\w+)?(?:\(.*\))?", left.strip())
    return right.strip() if named or not re.search("[A-Za-z]", left) else clean


def _compact(clean: str) -> str:
    """Drop spaces, save between digits: "1 4/5" is not "14/5"; words lose their case."""
    if _WORDS.fullmatch(clean):
        return clean.casefold()
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", clean)


def _number(clean: str) -> Fraction | None:
    """The value of a plain number or simple fraction, else None."""
    match = (_PLAIN.fullmatch(clean) or _RATIO.fullmatch(clean)) if len(clean) < 100 else None
    if match is None:
        return None
    sign, *parts = match.groups()
    over, *under = (Fraction(Decimal(part.replace(",", ""))) for part in parts if part is not None)
    if under == [0]:
        return None
    value = over / under[0] if under else over
    return -value if sign == "-" else value


def _equal_mathematics(given: str, expected: str) -> bool:
    """Compare with math-verify, which raises, logs and may take long on odd input."""
    # Its timeouts are signals, which only the main thread gets.
    seconds = 5 if threading.current_thread() is threading.main_thread() else None
    endless = seconds is None and (_EXPLODING.search(given) or _EXPLODING.search(expected))
    if endless or max(len(given), len(expected)) > 400:
        return False
    from math_verify import parse, verify  # type: ignore[import-untyped]

    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        ours, theirs = (parse(f"${one}$", parsing_timeout=seconds) for one in (given, expected))
        return bool(verify(theirs, ours, timeout_seconds=seconds))
    except Exception:  # sympy and antlr raise many unrelated kinds
        return False
