"""TL;DR summaries: openai/summarize_from_feedback comparisons, and the trl-lib form."""

from collections.abc import Iterator

from rewardsteer.data.sources.files import Row, read_rows, require, well_formed
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison

HUB = "openai/summarize_from_feedback"


def load(split: str, *, path: str | None = None) -> Iterator[Comparison]:
    """Rows with ``info.post``, ``summaries[choice].text`` (published), or with ``prompt``,
    ``chosen``, ``rejected`` (trl-lib/tldr-preference).

    The hub's script no longer loads with current libraries; its Parquet conversion does.
    """
    rows = read_rows(
        split, path, HUB, hub_splits={"test": "validation"}, name="comparisons",
        revision="refs/convert/parquet",
    )
    for index, (place, row) in enumerate(rows):
        with well_formed(place):
            prompt, chosen, rejected = _texts(row, place)
            comparison = Comparison(
                id=f"tldr-{split}-{index}", prompt=prompt, chosen=chosen.strip(),
                rejected=rejected.strip(), source="tldr",
            )
        yield comparison


def _texts(row: Row, place: str) -> tuple[str, str, str]:
    if "summaries" in row:
        require(row, ["info", "summaries", "choice"], place)
        summaries, choice = row["summaries"], row["choice"]
        if choice not in (0, 1) or len(summaries) != 2:
            raise DataError(f"{place}: expected two summaries and a choice of 0 or 1.")
        prompt = (row["info"].get("post") or row["info"].get("article") or "").strip()
        return prompt, summaries[choice]["text"], summaries[1 - choice]["text"]
    require(row, ["prompt", "chosen", "rejected"], place)
    prompt = row["prompt"].strip().removesuffix("TL;DR:").rstrip()
    return prompt, row["chosen"], row["rejected"]
