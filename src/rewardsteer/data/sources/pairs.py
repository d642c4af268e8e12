"""Pairs from any file or hub data set in TRL's formats, with field mapping and optional margin."""

from collections.abc import Iterator, Mapping, Sequence

from rewardsteer.data.sources.comparisons import comparisons
from rewardsteer.data.sources.conversations import from_conversations
from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.hh import is_transcript
from rewardsteer.data.sources.options import check_choice, check_fields
from rewardsteer.data.sources.reading import Reading, read_rows
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.outputs import given
from rewardsteer.records import Comparison

_FIELDS = ("prompt", "chosen", "rejected", "margin", "subset", "id", "tools")
_REMEDY = (
    "columns of other names are given as "
    "'sources.0.options.fields={prompt: NAME, chosen: NAME, rejected: NAME}' (0: the first source)"
)
_TRANSCRIPTS = (
    "The prompts are transcripts ('Human: … Assistant:'), which a chat template writes as one user "
    "message each; the source hh with options.messages=true divides them into messages."
)


def load(
    split: str, *, path: str | None = None, name: str | None = None,
    fields: Mapping[str, str] | None = None, identical: str = "error", parted: str = "error",
    extras: Sequence[str] = (), reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Comparisons in the formats of TRL (explicit prompt, or implicit prompt with whole texts or
    conversations as ``chosen`` and ``rejected``), LLaMA-Factory and ShareGPT.

    Args:
        path: local file or folder.
        name: data set on the hub, as an alternative to ``path``.
        fields: this package's field names → the data's, where they differ.
        identical: what to do when chosen equals rejected: ``error`` or ``drop``.
        parted: what to do when chosen and rejected differ before the last turn: ``error``,
            ``first`` (compare the first answers that differ) or ``drop``.
        extras: further columns of numbers, kept for the objective (see `Comparison`).

    Raises:
        ConfigError: neither path nor name, or an unknown field name.
        DataError: absent fields, or identical responses; names the row.
    """
    reading = reading or Reading()
    if path is None and name is None and reading.hub is None:
        raise ConfigError("The source pairs needs a path or the name of a data set on the hub.")
    check_fields(fields or {}, _FIELDS)
    check_choice("parted", parted, ("error", "first", "drop"))
    check_choice("identical", identical, ("error", "drop"))

    def parse(raw: Row, place: str) -> Comparison | str:
        row = dict(raw)
        for ours, theirs in (fields or {}).items():
            require(raw, [theirs], place)
            row[ours] = raw[theirs]
        found = from_conversations(
            row, place, id=str(given(row, "id")), parted=parted, remedy=_REMEDY
        )
        if isinstance(found, str):
            return found
        if is_transcript(found.prompt):
            reading.note(_TRANSCRIPTS)
        if found.chosen == found.rejected and identical == "error":
            raise DataError(
                f"{place}: chosen equals rejected, which prefers nothing; remove the row or "
                "set sources.0.options.identical=drop (0: the first source)."
            )
        require(raw, list(extras), place)
        return found.model_copy(update={"extras": {name: float(raw[name]) for name in extras}})

    rows = read_rows(split, path, name or "", reading=reading)
    yield from comparisons("pairs", split, rows, reading, parse)

