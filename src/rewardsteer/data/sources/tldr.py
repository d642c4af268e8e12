"""TL;DR summaries: openai/summarize_from_feedback comparisons, and the trl-lib form."""

from collections.abc import Iterator

from rewardsteer.data.sources.comparisons import read_comparisons
from rewardsteer.data.sources.files import Row, require
from rewardsteer.data.sources.reading import Reading
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison

HUB = "openai/summarize_from_feedback"


def load(
    split: str, *, path: str | None = None, reading: Reading | None = None
) -> Iterator[Comparison]:
    """Rows with ``info.post`` and ``summaries[choice].text`` (published), or with ``prompt``,
    ``chosen`` and ``rejected`` (trl-lib/tldr-preference).

    Rows without a post (news articles, in the published validation split) are skipped and counted,
    as in the published code. The hub's loading script does not run with current libraries, so its
    Parquet conversion is read.
    """
    place = {"name": "comparisons", "revision": "refs/convert/parquet"}
    yield from read_comparisons(
        "tldr", split, path, reading, _parse, hub=HUB, hub_splits={"test": "validation"},
        **({} if reading is not None and reading.hub is not None else place),
    )


def _parse(row: Row, place: str) -> Comparison | str:
    prompt, chosen, rejected = _texts(row, place)
    if not prompt:
        return "without a post"
    return Comparison(id="", prompt=prompt, chosen=chosen.strip(), rejected=rejected.strip())


def _texts(row: Row, place: str) -> tuple[str, str, str]:
    if "summaries" in row:
        require(row, ["info", "summaries", "choice"], place)
        summaries, choice = row["summaries"], row["choice"]
        if choice not in (0, 1) or len(summaries) != 2:
            raise DataError(f"{place}: expected two summaries and a choice of 0 or 1.")
        prompt = (row["info"].get("post") or "").strip()
        return prompt, summaries[choice]["text"], summaries[1 - choice]["text"]
    require(row, ["prompt", "chosen", "rejected"], place)
    prompt = row["prompt"].strip().removesuffix("TL;DR:").rstrip()
    return prompt, row["chosen"], row["rejected"]
