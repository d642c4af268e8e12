"""UltraFeedback: HuggingFaceH4/ultrafeedback_binarized message lists."""

from collections.abc import Iterator

from rewardsteer.data.sources.comparisons import read_comparisons
from rewardsteer.data.sources.conversations import from_conversations
from rewardsteer.data.sources.opening import Row
from rewardsteer.data.sources.reading import Reading
from rewardsteer.records import Comparison

HUB = "HuggingFaceH4/ultrafeedback_binarized"


def load(
    split: str, *, path: str | None = None, score_margin: bool = False,
    reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Preference rows of the ``train_prefs`` and ``test_prefs`` splits.

    Args:
        path: local file or folder.
        score_margin: take ``score_chosen − score_rejected`` as the margin.
    """
    def parse(row: Row, place: str) -> Comparison | str:
        found = from_conversations(row, place)
        if not score_margin or isinstance(found, str):
            return found
        margin = float(row["score_chosen"]) - float(row["score_rejected"])
        return found.model_copy(update={"margin": margin})

    yield from read_comparisons(
        "ultrafeedback", split, path, reading, parse, hub=HUB,
        hub_splits={"train": "train_prefs", "test": "test_prefs"},
    )
