r"""The final answer in the text of a solution."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rewardsteer.answers.numbers import number
from rewardsteer.answers.spelling import MEASURED, NUMBER, cleaned

# A minus after a letter, a digit or a bracket is a subtraction, not a sign.
_IN_TEXT = re.compile(
    r"(?:(?<![\w.)\]}])[-−])?\$?(?:\\[dt]?frac\{[0-9]+\}\{[0-9]+\}|"
    rf"{NUMBER}(?:/[0-9]+(?![0-9/]))?)(?:\\?%)?"
)
_THOUGHTS = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>|^.*</think(?:ing)?>", re.DOTALL)
_STATED = re.compile(
    r"(?:\bthe\s+|^[ \t*#]*|\b(?:so|thus|hence|therefore),?\s+)(?:final\s+|correct\s+)?"
    r"(?:answer|option|choice)\s+is\b\s*:?[ \t*]*",
    re.IGNORECASE | re.MULTILINE,
)
# "Final Answer: How many …?" repeats the question: a line that ends with "?" holds no answer.
_LABEL = re.compile(
    r"^[ \t*#]*(?:(?:final\s+)?answer|ans|result|A)[ \t*]*(?::|=|\*\*[ \t]*$|(?<=Answer)$)\**[ \t]*"
    r"\n*(?!.*\?[ \t]*$)(.*)",
    re.IGNORECASE | re.MULTILINE,
)
_FIELD = re.compile(r'"(?:final_?)?answer"\s*:\s*(?=\S)', re.IGNORECASE)
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*")
_JOINED = re.compile(r"[\s$.]*(?:,|and|or|\\text\{\s*(?:and|or)\s*\})[\s$]*(?:[a-z]\s*=\s*)?")
_DENIED = re.compile(rf"{_STATED.pattern}not\s[^.\n]*", re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"^\s*```\w*\s*|\s*```\s*$")
_OPENERS = ("\\[", "\\(", "$$", "```", "{")
_CONCLUSION = re.compile(
    r"\b(?:so|thus|therefore|hence|in total|total(?: is|:)?)\b", re.IGNORECASE
)
_BRACKETED = re.compile(r"\s\([^()]*\)")
_NAMED = re.compile(rf"(?<![\w}}])[a-zA-Z]\s*=\s*(-?{NUMBER})(?=\s*[$.,;]|\s*$)")
_SUM = re.compile(rf"(?:^|[a-z]\s+)({NUMBER})\s*=\s*{NUMBER}\s*[-+*/×][^=]*$")
# A full stop after these abbreviations does not end a sentence.
_SENTENCE = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)\.\s|\n")


class _Found(NamedTuple):
    """A stated answer ("" where none is given), and the character at which its statement begins."""

    at: int
    answer: str


def extract_answer(text: str) -> str | None:
    r"""Return the final answer of a solution, None where there is none.

    Thoughts between ``<think>`` and ``</think>`` are ignored. Text after "####" has priority.
    Next comes the last one of: a ``\boxed{}`` (several in a row form a list), "The answer is …", a
    line "Answer: …", a JSON field ``"answer"`` and a tag ``<answer>``. The fallback is the number
    in the text's conclusion.
    """
    text = _THOUGHTS.sub("", text)
    marked = [_stated(tail.strip().partition("\n")[0]) for tail in text.split("####")[1:][-1:]]
    if marked and marked[0]:
        return marked[0]
    found = [*_boxes(text), *_statements(text)]
    if found:
        return max(found, key=lambda one: one.at).answer or None
    return _concluded(text)


def last_boxed(text: str) -> str | None:
    r"""Return what the last complete ``\boxed{}`` or ``\fbox{}`` with content holds, else None."""
    found = [inner for _, _, inner in _each_box(text)]
    return found[-1] if found else None


def _each_box(text: str) -> Iterator[tuple[int, int, str]]:
    """The first character, the end and the content of each box."""
    for match in _BOX.finditer(text):
        rest = text[match.end():]
        inner = _braced(rest) if rest.startswith("{") else re.split(r"[$\s]", rest, maxsplit=1)[0]
        end = match.end() + len(inner) + (2 if rest.startswith("{") else 0)
        inner = inner.strip(" \t\n$")
        if inner:
            yield match.start(), end, inner


def _boxes(text: str) -> list[_Found]:
    """The last box, joined with the boxes of the same list in front of it."""
    boxes = list(_each_box(text))
    if not boxes:
        return []
    listed = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _JOINED.fullmatch(text[box[1] : listed[0][0]]):
            break
        listed.insert(0, box)
    return [_Found(boxes[-1][0], ", ".join(dict.fromkeys(inner for _, _, inner in listed)))]


def _statements(text: str) -> Iterator[_Found]:
    fields = []
    for match in _FIELD.finditer(text):
        value, length = _value(text[match.end():])
        fields.append(range(match.start(), match.end() + length))
        answer = _stated(_first_block(value)) if value else value
        if answer is not None:
            yield _Found(match.start(), answer)
    for match in _STATED.finditer(text):
        if any(match.start() in field for field in fields):
            continue
        tail = _first_block(text[match.end():])
        answer = _stated(tail)
        if answer:
            yield _Found(match.start(), answer)
    for pattern in (_LABEL, _TAG):
        for match in pattern.finditer(text):
            answer = _stated(_first_block(match.group(1) if pattern is not _LABEL else
                                          text[match.start(1):]))
            if answer:
                yield _Found(match.start(), answer)


def _value(text: str) -> tuple[str | None, int]:
    """The JSON value at the beginning of the text, and its length. The value is "" for null, None
    for an object with several keys, and the first word where the JSON is cut off or invalid."""
    if written := re.match(r'"((?:[^"\\]|\\.)*)"?', text, re.DOTALL):
        # Models rarely escape LaTeX backslashes, and JSON would decode the \f of \frac.
        return re.sub(r'\\(["\\])', r"\1", written.group(1)), written.end()
    try:
        value, end = json.JSONDecoder(parse_float=str, parse_int=str).raw_decode(text)
    except (ValueError, RecursionError):
        word = text.split(maxsplit=1)[0].split(",")[0].rstrip("}")
        return word, len(word)
    if isinstance(value, dict) and len(value) == 1:
        [value] = value.values()
    if isinstance(value, list) and not any(map(_is_nested, value)):
        value = ", ".join(map(str, value))
    if value is None:
        return "", end
    return None if _is_nested(value) else str(value), end


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _first_block(tail: str) -> str:
    """The first sentence or non-empty line; a displayed formula or fenced block as one line."""
    tail = tail.lstrip(" \t\n*:")
    if field := _FIELD.search(tail.partition("\n\n")[0]) if tail.startswith(("```", "{")) else None:
        return _value(tail[field.end():])[0] or ""
    for opener, closer in (("\\[", "\\]"), ("$$", "$$"), ("```", "```")):
        if tail.startswith(opener) and (end := tail.find(closer, len(opener))) > 0:
            return _FENCE.sub("", tail[: end + len(closer)]).replace("\n", " ")
    return _SENTENCE.split(tail, maxsplit=1)[0]


def _braced(text: str) -> str:
    """The content of the braces that open the text; a plain number where they are not closed."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[1:match.start()]
    open_ = re.match(rf"\{{\s*(-?{NUMBER})\s*\$", text)
    return open_.group(1) if open_ else ""


def _stated(tail: str) -> str | None:
    """The answer in the text that follows "The answer is"; None where it holds none."""
    tail = tail.strip(" \t*")
    if tail.startswith("not ") or tail in _OPENERS:
        return None
    clean = cleaned(re.sub(r"\s\((?:rounded|approx|to|i\.e|or)\b[^()]*\)", "", tail))
    left, _, right = clean.rpartition("=")
    if left and not re.search("[A-Za-z]", left):
        clean = cleaned(right)
    letter = re.match(r"\(?([A-J])(?:\)|\s+(?:because|since|as)\b)", clean)
    if letter:
        return letter.group(1)
    if number(clean) is not None:
        return clean
    if measured := re.match(MEASURED, clean):
        return measured.group(1)
    # "11, with 6 left over": what follows the comma is about another number.
    first = re.match(rf"(-?{NUMBER}(?:/[0-9]+)?%?)(?:,\s+[a-z]|\s+[a-z(])", clean)
    if first and not re.match(r".*?\s(?:to|and|or|x|times)\s", clean[: first.end() + 4]):
        return first.group(1)
    words = len(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", clean))
    if words > 1:
        return _last_number(clean) or (clean if words < 5 else None)
    return clean or None


def _concluded(text: str) -> str | None:
    """A number from a text that states no answer: that of its last conclusion, else the last."""
    bare = _BRACKETED.sub(" ", _DENIED.sub("", text))
    numbered = [one for one in re.split(r"(?<=[.!?])\s+|\n", bare) if re.search("[0-9]", one)]
    if numbered and _CONCLUSION.search(numbered[-1]):
        for pattern in (_NAMED, _SUM):
            if found := pattern.findall(numbered[-1]):
                return cleaned(found[-1])
    return _last_number(bare) or _last_number(_DENIED.sub("", text))


def _last_number(text: str) -> str | None:
    found = _IN_TEXT.findall(text)
    return cleaned(found[-1]) if found else None
