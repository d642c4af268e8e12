"""Equality of two final answers, and keys that group equal answers in a vote.

Numbers are compared by value: exactly with an integer reference, otherwise to the last digit that
the reference prints. Other answers are compared as normalized text, then by ``math-verify``.
"""

import re
from decimal import Context, Decimal
from fractions import Fraction

from rewardsteer.answers.intervals import as_intervals
from rewardsteer.answers.mathematics import WORDS, same_mathematics
from rewardsteer.answers.numbers import Number, number
from rewardsteer.answers.spelling import NUMBER, cleaned, unit

# A signed number that is a separate word: "160 - r" and "2x" contain no match.
_VALUE = re.compile(rf"(?<![\w.\\^_{{])-?{NUMBER}%?(?![\w^_{{]|\.[0-9])")
_WORD = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sin|cos|tan|log|ln|sqrt|pi|exp|frac|text|and|or)\b)[A-Za-z]{2,}"
)
_DENIES = re.compile(
    r"\b(?:not|cannot|can't|never|no|none|un\w+|infinit\w+|impossible|between|than|least|most)\b|"
    r"[+*/^=<>]|\s-\s", re.IGNORECASE,
)
# Fewest words of a sentence.
_CLAUSE = 3
_CHOICE = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice)\s+)?\(?([A-Ja-j])(?:[).:](?:[\s\\].*)?|)", re.DOTALL
)
_TIME = re.compile(r"[0-9]{1,2}:[0-5][0-9]")
_TO = re.compile(r"([0-9.]+)\s*(?::|to)\s*([0-9.]+)")
_NAMED = re.compile(r"\\?[A-Za-z]+(?:_\w+)?(?:\(.*\))?|\([a-z](?:,\s*[a-z])+\)")
# Most characters of a choice that is only its letter, such as "(B)".
_LETTER = 3
# Fewest decimals that a rounded fraction must have.
_ROUNDED = 4


def same_answer(given: str | None, expected: str) -> bool:
    """Whether a given answer equals the expected one; False for input that cannot be compared.

    Integers must be equal. Other numbers may differ by half a unit of the last digit that the
    expected answer prints. "50%" equals both 50 and 0.5.
    """
    if given is None:
        return False
    ours, theirs = cleaned(given), cleaned(expected)
    chosen, right = _CHOICE.fullmatch(ours), _CHOICE.fullmatch(theirs)
    if chosen and right and min(len(ours), len(theirs)) <= _LETTER:
        return chosen.group(1).upper() == right.group(1).upper()
    if "" not in (unit(given), unit(expected)) and unit(given) != unit(expected):
        return False
    if _same(ours, theirs):
        return True
    said = _said(ours) if number(theirs) is not None else None
    return said is not None and _same(said, theirs)


def _said(clean: str) -> str | None:
    """The only number in a sentence, such as 90,000 in "The house cost 90,000". None where the
    sentence holds several numbers or a negation."""
    found = _VALUE.findall(clean)
    if len(found) != 1 or not _is_clause(clean) or _DENIES.search(clean):
        return None
    return cleaned(found[0])


def _is_clause(clean: str) -> bool:
    return len(_WORD.findall(clean)) >= _CLAUSE


def canonical_answer(text: str | None, expected: str | None = None) -> str | None:
    """Return a key that equal answers share in a vote; None stays None.

    Equal plain numbers share a key (non-integers to ten significant digits). In other answers only
    spacing and LaTeX spelling are normalized.

    Args:
        expected: the reference. Where it is a number, a sentence counts as its only number.
    """
    if text is None:
        return None
    clean = cleaned(text)
    if expected is not None and number(cleaned(expected)) is not None:
        clean = _said(clean) or clean
    named = _right_side(clean)
    found = number(named)
    if found is None:
        return _compact(clean)
    if found.value.denominator == 1:
        return str(found.value.numerator)
    over, under = Decimal(found.value.numerator), Decimal(found.value.denominator)
    return format(Context(prec=10).divide(over, under).normalize(), "f")


def _same(ours: str, theirs: str) -> bool:
    if ("=" in ours) != ("=" in theirs):
        ours, theirs = _right_side(ours), _right_side(theirs)
    first, second = number(ours), number(theirs)
    if first is not None and second is not None:
        return _same_number(first, second)
    mine, other = _parts(ours), _parts(theirs)
    if len(mine) > 1 or len(other) > 1:
        return _same_parts(mine, other)
    if _compact(ours) == _compact(theirs):
        return bool(theirs)
    ratios = _ratio(ours), _ratio(theirs)
    if None not in ratios:
        return ratios[0] == ratios[1]
    return same_mathematics(*as_intervals(ours, theirs))


def _same_number(given: Number, expected: Number) -> bool:
    values = [given.value]
    if given.percent and not expected.percent:
        values.append(given.value / 100)
    reference = expected.value
    if expected.percent and not given.percent:
        values.append(given.value * 100)
    if reference in values:
        return True
    if reference.denominator == 1 and not expected.decimals:
        return False
    if expected.decimals is None:
        # 1/3 has no finite decimal form: it may be given rounded, to enough digits.
        digits = given.decimals
        if digits is None or digits < _ROUNDED or _ends(reference):
            return False
    else:
        digits = expected.decimals
    # Digits beyond the tenth significant one are rounding noise of floating-point arithmetic.
    allowed = max(Fraction(1, 2 * 10**digits), abs(reference) / 10**10)
    return any(abs(value - reference) <= allowed for value in values)


def _ends(value: Fraction) -> bool:
    """Whether a fraction has a finite decimal expansion."""
    # Its denominator has no prime factors but 2 and 5, fewer of each than binary digits.
    return 10 ** value.denominator.bit_length() % value.denominator == 0


def _parts(clean: str) -> list[str]:
    """The answers in a list such as "x=1, x=2", "1 and 2" or "A, B"; a single answer is kept."""
    if number(clean) is not None or (clean[:1] in "([{" and clean[-1:] in ")]}"):
        return [clean]
    depth, parts, begin = 0, [], 0
    for match in re.finditer(r"[(\[{]|[)\]}]|,|;|\s(?:and|or)\s", clean):
        sign = match.group()
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and sign not in ")]}":
            parts.append(clean[begin:match.start()])
            begin = match.end()
    parts = [_right_side(part.strip()) for part in [*parts, clean[begin:]] if part.strip()]
    joined = re.search(r"\s(?:and|or)\s", clean)
    if joined and not all(re.search(r"[0-9]", part) for part in parts):
        return [clean]
    return parts


def _same_parts(ours: list[str], theirs: list[str]) -> bool:
    """Whether two lists hold the same answers, in any order."""
    left = list(theirs)
    for one in ours:
        found = next((other for other in left if _same(one, other)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _ratio(clean: str) -> Fraction | None:
    """The value of "3:4", "3 to 4" or a number; None for a time of day and anything else."""
    match = _TO.fullmatch(clean)
    if match and not _TIME.fullmatch(clean):
        over, under = number(match.group(1)), number(match.group(2))
        if over is not None and under is not None and under.value:
            return over.value / under.value
    plain = number(clean)
    return plain.value if plain is not None else None


def _right_side(clean: str) -> str:
    """The value in "x = 5", "5 = x" or "2 + 3 = 5". Other equations, of a circle say, are kept."""
    left, equals, right = clean.rpartition("=")
    if not equals:
        return clean
    if number(left.strip()) is not None and re.fullmatch(r"\s*[A-Za-z]\s*", right):
        return left.strip()
    named = _NAMED.fullmatch(left.strip())
    return right.strip() if named or not re.search("[A-Za-z]", left) else clean


def _compact(clean: str) -> str:
    """Remove spaces, except between digits ("1 4/5" is not "14/5") and in sentences, and lower the
    case of words."""
    if WORDS.fullmatch(clean) or _is_clause(clean):
        return clean.casefold()
    return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", clean)
