"""HelpSteer: pairs of responses to one prompt, ranked by one attribute."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from rewardsteer.data.sources.files import Row, read_rows, require, well_formed
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.records import Comparison

HUB = "nvidia/HelpSteer2"
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def load(
    split: str, *, path: str | None = None, attribute: str = "helpfulness", min_margin: float = 1.0
) -> Iterator[Comparison]:
    """All pairs of responses to a prompt that differ in the attribute.

    Args:
        split: ``train`` or ``test``.
        path: local file or folder.
        attribute: which score ranks them; the difference becomes the margin.
        min_margin: smallest difference that counts.
    """
    if attribute not in ATTRIBUTES:
        raise ConfigError(f"Unknown attribute {attribute!r}; known: {', '.join(ATTRIBUTES)}.")
    by_prompt: dict[str, list[Row]] = defaultdict(list)
    for place, row in read_rows(split, path, HUB, hub_splits={"test": "validation"}):
        require(row, ["prompt", "response", attribute], place)
        if not isinstance(row["prompt"], str) or not isinstance(row["response"], str):
            raise DataError(f"{place}: expected texts as prompt and response.")
        with well_formed(place):
            by_prompt[row["prompt"]].append(row | {attribute: float(row[attribute])})
    for number, (prompt, responses) in enumerate(by_prompt.items()):
        for first, second in combinations(range(len(responses)), 2):
            better, worse = responses[first], responses[second]
            if worse[attribute] > better[attribute]:
                better, worse = worse, better
            margin = better[attribute] - worse[attribute]
            if margin >= min_margin:
                yield Comparison(
                    id=f"helpsteer-{split}-{number}-{first}-{second}", prompt=prompt,
                    chosen=better["response"], rejected=worse["response"], margin=margin,
                    source="helpsteer", subset=attribute,
                )
