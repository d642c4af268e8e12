"""Helpful and harmless dialogues: rows of Dahoas/static-hh, transcripts of Anthropic/hh-rlhf."""

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

    The prompt is the transcript up to and including the last ``Assistant:``; the plain text
    template does not change it.

    Args:
        path: local file or folder; None: the published data.
        messages: split the transcript into messages, for a chat template.
    """
    parse = _parse_messages if messages else _parse
    yield from read_comparisons("hh", split, path, reading, parse, hub=HUB)


def is_transcript(prompt: Prompt) -> bool:
    """Whether a prompt is a text with several speakers that ends with ``Assistant:``."""
    return isinstance(prompt, str) and bool(
        re.match(r"\s*Human:", prompt) and prompt.rstrip().endswith(_ANSWER)
    )


def to_messages(transcript: str, place: str) -> list[Message]:
    """The messages of a transcript, without the opened answer (``Assistant:``) at its end.

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
    """The prompt and the two answers of transcripts with a common beginning.

    The transcripts may differ in the last answer or an earlier one. The prompt ends at the last
    ``Assistant:`` of the common beginning.

    Raises:
        DataError: they share no ``Assistant:``.
    """
    common = chosen[: shared_length(chosen, rejected)]
    # The common beginning may end inside the marker.
    cut = common.rfind(_ANSWER)
    if cut < 0:
        raise DataError(
            f"{place}: expected two transcripts that share a beginning up to 'Assistant:'."
        )
    end = cut + len(_ANSWER)
    return chosen[:end], chosen[end:], rejected[end:]
