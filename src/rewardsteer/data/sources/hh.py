"""Helpful and harmless dialogues: Dahoas/static-hh rows and Anthropic/hh-rlhf transcripts."""

import re
from collections.abc import Iterator

from rewardsteer.data.sources.comparisons import read_comparisons
from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import Reading
from rewardsteer.data.thoughts import shared_length
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison, Message, Prompt

HUB = "Dahoas/static-hh"
_ANSWER = "\n\nAssistant:"
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def load(
    split: str, *, path: str | None = None, messages: bool = False,
    reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Rows with ``prompt``, ``chosen``, ``rejected``, or two whole transcripts.

    The prompt stays as the transcript up to and including the last ``Assistant:``, so the plain
    text template leaves it as it is.

    Args:
        path: local file or folder; None: the published data.
        messages: divide the transcript into messages, for a chat template.
    """
    parse = _parse_messages if messages else _parse
    yield from read_comparisons("hh", split, path, reading, parse, hub=HUB)


def is_transcript(prompt: Prompt) -> bool:
    """Whether a prompt is one text of several speakers, up to an opened answer."""
    return isinstance(prompt, str) and bool(
        re.match(r"\s*Human:", prompt) and prompt.rstrip().endswith(_ANSWER)
    )


def to_messages(transcript: str, place: str) -> list[Message]:
    """The turns of a transcript that ends with an opened answer, which is none of them.

    Raises:
        DataError: text before the first speaker, or it does not end with ``Assistant:``.
    """
    begin, *turns = _TURN.split(transcript)
    if len(turns) < 4 or begin.strip() or turns[-2] != "Assistant" or turns[-1].strip():
        raise DataError(
            f"{place}: expected a transcript of turns 'Human:' and 'Assistant:' that ends with "
            "'Assistant:'; leave out options.messages to keep the prompt as it is."
        )
    spoken = list(zip(turns[:-2:2], turns[1:-2:2], strict=True))
    return [Message(role=_ROLES[speaker], content=text.strip()) for speaker, text in spoken]


def _parse_messages(row: Row, place: str) -> Comparison:
    found = _parse(row, place)
    return found.model_copy(update={
        "prompt": to_messages(str(found.prompt), place), "chosen": found.chosen.strip(),
        "rejected": found.rejected.strip(),
    })


def _parse(row: Row, place: str) -> Comparison:
    require(row, ["chosen", "rejected"], place)
    if row.get("prompt") is not None:
        prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
    else:
        prompt, chosen, rejected = split_transcripts(row["chosen"], row["rejected"], place)
    # One space follows "Assistant:"; it begins the response's first token.
    return Comparison(
        id="", prompt=prompt.rstrip(), chosen=" " + chosen.strip(), rejected=" " + rejected.strip(),
    )


def split_transcripts(chosen: str, rejected: str, place: str) -> tuple[str, str, str]:
    """Prompt and the two last answers of transcripts that share their beginning.

    The transcripts part inside the last answer, or at an earlier one; either way the prompt ends at
    the last ``Assistant:`` that both have in common.

    Raises:
        DataError: they share no ``Assistant:``.
    """
    common = chosen[: shared_length(chosen, rejected)]
    # The shared text may end within the marker, where both answers begin alike.
    cut = common.rfind(_ANSWER)
    if cut < 0:
        raise DataError(
            f"{place}: expected two transcripts that share a beginning up to 'Assistant:'."
        )
    end = cut + len(_ANSWER)
    return chosen[:end], chosen[end:], rejected[end:]
