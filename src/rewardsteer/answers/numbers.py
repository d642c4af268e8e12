"""Values of the numbers in answers: digits, fractions, powers of ten, words."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from rewardsteer.answers.spelling import NUMBER

_PLAIN = re.compile(rf"({NUMBER})(?:[eE]([+-]?[0-9]{{1,3}}))?")
_POWER = re.compile(
    rf"(?:({NUMBER})\s*(?:\\times|\\cdot|\*|x|times)\s*)?"
    r"10\s*(?:\^|\*\*)\s*\{?([+-]?[0-9]{1,3})\}?"
)
_RATIO = re.compile(
    rf"(?:({NUMBER})\s*/\s*({NUMBER})|\\frac\{{({NUMBER})\}}\{{({NUMBER})\}})"
)
_MIXED = re.compile(r"([0-9]+)(?:[ -]([0-9]+)/([0-9]+)|\s?\\frac\{([0-9]+)\}\{([0-9]+)\})")
_SPACED = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_REPEATING = re.compile(r"([0-9]+)\.([0-9]*)\\overline\{([0-9]+)\}")
_SCALE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALED = re.compile(rf"({NUMBER})\s*({'|'.join(_SCALE)})s?", re.IGNORECASE)
_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}
_SIGN = re.compile(r"^(?:([+-])\s*|(negative|minus)\s+)", re.IGNORECASE)
# "100,200" is more likely a list of two round numbers than one number.
_TWO_ROUND = re.compile(r"[1-9]00,[1-9]00")
# Longer texts are not numbers that people write, and take long to parse.
_LONGEST = 100


@dataclass(frozen=True)
class Number:
    """A number and how it was written.

    Attributes:
        value: exact.
        decimals: digits after the point; None for a fraction or mixed number.
        percent: whether a percent sign followed.
    """

    value: Fraction
    decimals: int | None = 0
    percent: bool = False


def number(clean: str) -> Number | None:
    """The number that a cleaned answer consists of; None where it is not a number."""
    if not 0 < len(clean) < _LONGEST:
        return None
    sign = _SIGN.match(clean)
    rest = clean[sign.end():] if sign else clean
    percent = rest.endswith("%")
    found = _unsigned(rest.removesuffix("%").rstrip() if percent else rest)
    if found is None:
        return None
    value = -found.value if sign and sign.group(1) != "+" else found.value
    return Number(value, found.decimals, percent)


def _unsigned(text: str) -> Number | None:
    if _TWO_ROUND.fullmatch(text):
        return None
    if match := _PLAIN.fullmatch(text):
        return _scaled(match.group(1), int(match.group(2) or 0))
    if match := _POWER.fullmatch(text):
        return _scaled(match.group(1) or "1", int(match.group(2)))
    if match := _SCALED.fullmatch(text):
        return _scaled(match.group(1), _SCALE[match.group(2).lower()])
    if _SPACED.fullmatch(text):
        return _scaled(text.replace(" ", ""), 0)
    if match := _REPEATING.fullmatch(text):
        whole, fixed, cycle = match.groups()
        under = 10 ** len(fixed) * (10 ** len(cycle) - 1)
        return Number(int(whole + fixed) / Fraction(10 ** len(fixed)) + Fraction(int(cycle), under),
                      None)
    if match := _MIXED.fullmatch(text) if " " in text or "\\" in text else None:
        whole, top, bottom = (int(one) for one in match.groups() if one is not None)
        return Number(whole + Fraction(top, bottom), None) if bottom else None
    if match := _RATIO.fullmatch(text):
        over, under = (_fraction(one) for one in match.groups() if one is not None)
        return Number(over / under, None) if under else None
    words = _words(text)
    return None if words is None else Number(Fraction(words))


def _fraction(digits: str) -> Fraction:
    return Fraction(Decimal(digits.replace(",", "")))


def _scaled(digits: str, power: int) -> Number:
    decimals = len(digits.partition(".")[2]) - power
    return Number(_fraction(digits) * Fraction(10) ** power, max(decimals, 0))


def _words(text: str) -> int | None:
    """The value of "twenty-five" or "two hundred and six"; None for other words."""
    names = [name for name in re.split(r"[\s-]+", text.lower()) if name != "and"]
    if not names or any(name not in _SMALL and name not in _SCALE for name in names):
        return None
    total = part = 0
    for name in names:
        if name in _SMALL:
            part += _SMALL[name]
        elif name == "hundred":
            part = max(part, 1) * 100
        else:
            total, part = total + max(part, 1) * 10 ** _SCALE[name], 0
    return total + part
