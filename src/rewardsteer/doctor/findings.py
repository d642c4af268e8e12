"""Results of the checks, as text for a terminal and as JSON."""

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "fault", "not checked"]

_WIDTH = 100
_LABELS = {"ok": "ok", "note": "note", "fault": "FAULT", "not checked": "-"}


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        check: name of the check.
        status: ``ok``; ``note``: other programs may compute other rewards; ``fault``: rewards are
            wrong, or depend on the program; ``not checked``: the check could not run here.
        summary: what was found, with numbers, and what to do.
        figures: the numbers alone.
    """

    check: str
    status: Status
    summary: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Token:
    """A token of a written text.

    Attributes:
        id: in the vocabulary.
        text: as the tokenizer stores it.
        part: ``prompt`` or ``response``.
    """

    id: int
    text: str
    part: Literal["prompt", "response"]


@dataclass(frozen=True)
class Diagnosis:
    """The result of an examination of a reward model.

    Attributes:
        about: facts on the loaded model: kind, architecture, dtype, template, special tokens,
            position of the reward, activation, limits.
        tokens: those of the first text, as the model gets them; empty where they are unknown.
        findings: those of all checks, in order.
    """

    model: str
    about: dict[str, str]
    tokens: list[Token]
    findings: list[Finding]

    @property
    def faults(self) -> list[Finding]:
        return [one for one in self.findings if one.status == "fault"]

    @property
    def healthy(self) -> bool:
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {"healthy": self.healthy, **asdict(self)}

    def __str__(self) -> str:
        lines = [self.model, ""]
        wide = max((len(name) for name in self.about), default=0)
        for name, text in self.about.items():
            lines += _wrapped(text, f"  {name.ljust(wide)}  ")
        if self.tokens:
            lines += ["", "Tokens of the first text with their ids (the reward is that of the last "
                      "one)", *_wrapped(_shown(self.tokens), "  ")]
        lines.append("")
        for one in self.findings:
            lines += _wrapped(f"{one.check}: {one.summary}", f"  {_LABELS[one.status].ljust(5)}  ")
        count = len(self.faults)
        verdict = "no fault found" if not count else "1 fault" if count == 1 else f"{count} faults"
        unchecked = [one.check for one in self.findings if one.status == "not checked"]
        if unchecked:
            verdict += f"; not checked: {', '.join(unchecked)}"
        return "\n".join([*lines, "", verdict])


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first),
        break_long_words=False, break_on_hyphens=False,
    )


def _shown(tokens: list[Token], most: int = 32) -> str:
    """Tokens with their ids; the middle of a long text is left out."""
    texts = [f"{one.text!r}·{one.id}" for one in tokens]
    if len(texts) > most:
        half = most // 2
        left_out = f"… {len(texts) - 2 * half} tokens …"
        texts = [*texts[:half], left_out, *texts[-half:]]
    return " ".join(texts)
