"""Shell commands and Python blocks of the documentation, as they are written."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OURS = ("rewardsteer ", "make ", "accelerate launch ", "python ", "bash ")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)((?:    .*\n|\n(?=    ))+)")
_INLINE = re.compile(r"`(rewardsteer [^`\n]+ [^`\n]+)`")


@dataclass(frozen=True)
class Command:
    """One command line, continuation lines joined, comment cut off."""

    page: str
    text: str
    inline: bool = False

    @property
    def words(self) -> list[str]:
        """As the shell would split it, without variables set for it."""
        words = shlex.split(self.text)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        return words

    @property
    def abbreviated(self) -> bool:
        """Whether the page leaves parts out: ``…``, ``[optional]``, or a mere mention in text."""
        return "…" in self.text or " [" in self.text or (self.inline and "--" not in self.text)

    def __str__(self) -> str:
        return f"{self.page}: {self.text[:70]}"


def blocks(page: Path) -> list[tuple[str, str]]:
    """``(language, text)`` of fenced and indented blocks; an indented one has no language."""
    text = page.read_text()
    found = [(m.start(), m[1], m[2]) for m in _FENCE.finditer(text)]
    rest = _FENCE.sub(lambda m: re.sub(r"[^\n]", "x", m[0]), text)
    for match in _INDENTED.finditer(rest):
        lines = [line.removeprefix("    ") for line in match[1].splitlines()]
        found.append((match.start(), "", "\n".join(lines) + "\n"))
    return [(language, block) for _, language, block in sorted(found)]


def commands(page: Path) -> list[Command]:
    """Commands of a page's blocks, and those that stand in its text and tables."""
    found = []
    for language, block in blocks(page):
        if language not in ("", "sh", "bash"):
            continue
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\s+#.*", "", line).strip()
            bare = re.sub(r"^(?:[A-Z_]+=\S*\s+)+", "", line)
            if bare.startswith(OURS) and not bare.startswith(("python -c", "python -m vllm")):
                found.append(Command(page.name, line))
    for match in _INLINE.finditer(_FENCE.sub("", page.read_text())):
        found.append(Command(page.name, match[1], inline=True))
    return found


def requests(page: Path) -> list[list[str]]:
    """The words of each call of curl on a page."""
    lines = [
        line.strip()
        for _, block in blocks(page) for line in re.sub(r"\\\n\s*", " ", block).splitlines()
    ]
    return [shlex.split(line) for line in lines if line.startswith("curl ")]


def python_blocks(page: Path) -> list[str]:
    """Python of a page: fenced, or indented and beginning with an import."""
    return [
        block for language, block in blocks(page)
        if language == "python" or (language == "" and block.startswith(("from ", "import ")))
    ]
