"""Helpful and harmless dialogues: Dahoas/static-hh rows and Anthropic/hh-rlhf transcripts."""

from collections.abc import Iterator

from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import Reading, comparisons, read_rows
from rewardsteer.data.thoughts import shared_length
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison

HUB = "Dahoas/static-hh"
_ANSWER = "\n\nAssistant:"


def load(
    split: str, *, path: str | None = None, reading: Reading | None = None
) -> Iterator[Comparison]:
    """Rows with ``prompt``, ``chosen``, ``rejected``, or two whole transcripts.

    The prompt stays as the transcript up to and including the last ``Assistant:``, so the plain
    text template leaves it as it is.
    """
    reading = reading or Reading()
    rows = read_rows(split, path, HUB, reading=reading)
    yield from comparisons("hh", split, rows, reading, _parse)


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
