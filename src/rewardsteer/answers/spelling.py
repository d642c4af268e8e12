r"""Normalized spelling of answers: Unicode as LaTeX, no markup, units, currency or hedging."""

import re

NUMBER = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
NO_UNIT = (
    "(?:(?:hundred|thousand|million|billion|trillion|dozen)s?|pi|sqrt|sin|cos|tan|log|ln|and|or|to|"
    "x|times|over)"
)
# Units that may follow a number without a space. Letters that are mostly variables are left out.
_ATTACHED = (
    "kgs?|g|mg|lbs?|oz|cm|mm|km|m|ft|in|ml|mL|l|L|mph|kmh|kph|hrs?|mins?|secs?|hours?|minutes?|am|"
    "pm"
)
MEASURED = (
    rf"(-?\s?{NUMBER}%?)(?:\s+(?!{NO_UNIT}\b)[A-Za-z][A-Za-z-]|\s?(?!{NO_UNIT}\b)[a-z]/[a-z]|"
    rf"\s?/\s?[A-Za-z]{{3}}|(?:st|nd|rd|th|{_ATTACHED})\b)"
)
_TEXT = r"\\(?:text|mbox|mathrm|textrm|textbf|textit|mathbf|operatorname)\s*\{([^{}]*)\}"
_HALVES = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5",
           "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8",
           "⅞": "7/8"}
_SIGNS = {"π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
          "÷": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ",
          "∈": r"\in ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "’": "'", "“": '"',
          "”": '"', "‘": "'", "\u2044": "/", "\u2060": "", "\u200b": ""}
_UP, _DOWN = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "₀₁₂₃₄₅₆₇₈₉"
_FIXED = str.maketrans(_SIGNS | {chr(0xFF10 + digit): str(digit) for digit in range(10)})
# Delimiters of a whole answer: Markdown, quotation marks, mathematics, a box.
_AROUND = tuple(re.compile(pattern, re.DOTALL) for pattern in (
    r"\*\*(.+?)\*\*", r"__(.+?)__", r"`+([^`]+?)`+", r'"([^"]+)"', r"'([^']+)'",
    r"\\\((.+?)\\\)", r"\\\[(.+?)\\\]", r"\$\$(.+?)\$\$", r"\$([^$]+)\$",
    r"\\(?:boxed|fbox|framebox)\s*\{(.+)\}", r"\\displaystyle\s*(.+)",
))
_HEDGE = re.compile(
    r"^(?:=|\\approx|≈|~|(?:about|approximately|approx\.?|around|roughly|nearly|almost|only|exactly|"
    r"equal to)\b)\s*(?=\S)", re.IGNORECASE,
)
_MONEY = re.compile(
    rf"\$?({NUMBER})\s*(?:dollars?|euros?)?(?:\s*,)?\s+and\s+([0-9]{{1,2}})\s+cents?",
    re.IGNORECASE,
)
# With a currency or unit "100,200" is one number, otherwise two (`rewardsteer.answers.numbers`).
_MEASURED_ROUND = re.compile(
    r"^\s*(?:(?:[$€£]|USD|EUR|GBP|Rs\.?)\s*([1-9]00),([1-9]00)|"
    r"([1-9]00),([1-9]00)(?=\s*(?:%|(?!and\b|or\b)[A-Za-z])))(?![0-9,$])"
)
_SPELLINGS = tuple((re.compile(pattern), replacement) for pattern, replacement in (
    (r"[−–﹣－]", "-"),
    # European style: a point between groups of three digits, a comma before the cents.
    (r"^((?:[€$£]\s?)?-?)([0-9]{1,3}(?:\.[0-9]{3})+),([0-9]{1,2})$", r"\1\2,,\3"),
    (r"\\(?:left|right|big|Big)(?![A-Za-z])|(?<!\\)\\!|\\?[$€£¢]", ""),
    (r"^(?:USD|EUR|GBP|Rs\.?)\s*(?=[0-9])|(?<=[0-9])\s*(?:USD|EUR|GBP)$", ""),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\\frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{([^{}]*)\}|([0-9]))", r"\\frac{\1\2}{\3\4}"),
    (r"\\sqrt\s*([0-9A-Za-z])", r"\\sqrt{\1}"),
    (rf"(?<=[0-9}}])\s*(?:\\[,;: ]\s*)*{_TEXT}(?:\^\{{?[0-9]\}}?)?\s*\.?\s*$", ""),
    (_TEXT, r"\1"),
    (r"(?<=[0-9])\s*[\"\u2033\u2032]$", ""),
    (r"\s*\bper\s*cent\b", "%"),
    (r"(?<=[0-9])[.,;]?(?:\*\*|\"|')[.,;]?$", ""),
    (r"\\(?=%)", ""),
    (r"\\q?quad|\{,\}", lambda found: "," if found.group() == "{,}" else " "),
    (r"_\{(\w)\}", r"_\1"),
    (r"(?:(?<!\\)\\[,;: ]|~|\s)+", " "),
    (r"^ ?\(([A-Za-z])\)[ .]*$", r"\1"),
    (rf"^ ?{MEASURED}[A-Za-z/ .-]*(?:\^[0-9])?$", r"\1"),
    (rf"^ ?(\\frac\{{[0-9]+\}}\{{[0-9]+\}}) (?!{NO_UNIT}\b)[A-Za-z][A-Za-z -]*$", r"\1"),
    (r"^ | ?[.;,]? ?$", ""),
))
_DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°)(?:\s*[CF]\b)?")
_TURN = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_ANGLE = re.compile(r"([0-9.]+)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°)")
_UNIT = re.compile(
    rf"^\s*-?\$?{NUMBER}\s*(?:\\[,;: ]\s*)*(?:{_TEXT}|([A-Za-z][A-Za-z]*))\s*\.?\s*$"
)


def cleaned(text: str) -> str:
    """The answer in the normalized spelling of this module; "" where nothing is left."""
    text = _peeled(_unicode(text))
    money = _MONEY.fullmatch(text.strip(" ."))
    if money:
        return f"{money.group(1).replace(',', '')}.{money.group(2):0>2}"
    text = _MEASURED_ROUND.sub(lambda m: "".join(part for part in m.groups() if part), text)
    # Inside a function the degree sign gives an angle in degrees; elsewhere it is a unit.
    text = _ANGLE.sub(r"(\1\\cdot\\pi/180)", text) if _TURN.search(text) else text
    text = _DEGREES.sub("", text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    if ",," in text:
        text = text.replace(".", "").replace(",,", ".")
    return text


def unit(text: str) -> str:
    """The unit after a number, in the singular; "" without one."""
    found = _UNIT.match(_peeled(_unicode(text)))
    if not found:
        return ""
    name = (found.group(1) or found.group(2) or "").strip().lower()
    return "" if re.fullmatch(NO_UNIT, name) else name.removesuffix("s")


def _unicode(text: str) -> str:
    """The text with Unicode signs and digits written as LaTeX or ASCII."""
    if text.isascii():
        return text
    for sign, value in _HALVES.items():
        text = re.sub(rf"(?<=[0-9]){sign}", f" {value}", text).replace(sign, value)
    text = re.sub(rf"[{_UP}]+", lambda m: "^{" + _digits(m.group(), _UP, "0123456789-") + "}", text)
    text = re.sub(rf"[{_DOWN}]+", lambda m: "_{" + _digits(m.group(), _DOWN, "0123456789") + "}",
                  text)
    text = re.sub(r"√\s*(?:\(([^()]*)\)|([0-9.]+|[A-Za-z]))", r"\\sqrt{\1\2}", text)
    return text.translate(_FIXED)


def _digits(text: str, signs: str, values: str) -> str:
    return text.translate(str.maketrans(signs, values))


def _peeled(text: str) -> str:
    """The text without the delimiters around it and without hedging words ("about")."""
    while True:
        before = text
        text = text.strip()
        bare = text.rstrip(".;,") if text.endswith((".", ";", ",")) else text
        for pattern in _AROUND:
            found = pattern.fullmatch(bare)
            if found:
                text = found.group(1)
                break
        text = _HEDGE.sub("", text, count=1) or text
        if text == before:
            return text
