"""HelpSteer: pairs of responses to one prompt, ranked by one attribute."""

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from rewardsteer.configuration import NonNegativeFinite
from rewardsteer.data.sources.files import require, well_formed
from rewardsteer.data.sources.reading import Reading, read_rows
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Comparison

HUB = "nvidia/HelpSteer2"
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def load(
    split: str, *, path: str | None = None, attribute: str = "helpfulness",
    min_margin: NonNegativeFinite = 1.0, reading: Reading | None = None,
) -> Iterator[Comparison]:
    """All pairs of responses to a prompt that differ in the attribute.

    Args:
        path: local file or folder.
        attribute: the score that ranks the responses; the difference becomes the margin.
        min_margin: smallest difference of a pair.
    """
    if attribute not in ATTRIBUTES:
        raise ConfigError(f"Unknown attribute {attribute!r}; known: {', '.join(ATTRIBUTES)}.")
    by_prompt: dict[str, list[tuple[str, float]]] = defaultdict(list)
    reading = reading or Reading()
    rows = read_rows(split, path, HUB, hub_splits={"test": "validation"}, reading=reading)
    for place, row in rows:
        with reading.row():
            require(row, ["prompt", "response", attribute], place)
            if not isinstance(row["prompt"], str) or not isinstance(row["response"], str):
                raise DataError(f"{place}: expected texts as prompt and response.")
            with well_formed(place):
                score = float(row[attribute])
            if not math.isfinite(score):
                raise DataError(f"{place}: expected a number as {attribute}, got {score}.")
            by_prompt[row["prompt"]].append((row["response"], score))
    for number, (prompt, responses) in enumerate(by_prompt.items()):
        for first, second in combinations(range(len(responses)), 2):
            better, worse = responses[first], responses[second]
            if worse[1] > better[1]:
                better, worse = worse, better
            margin = better[1] - worse[1]
            if margin >= min_margin:
                yield Comparison(
                    id=f"helpsteer-{split}-{number}-{first}-{second}", prompt=prompt,
                    chosen=better[0], rejected=worse[0], margin=margin, source="helpsteer",
                    subset=attribute,
                )
