"""UltraFeedback: HuggingFaceH4/ultrafeedback_binarized message lists."""

from collections.abc import Iterator

from rewardsteer.data.sources.conversations import from_conversations
from rewardsteer.data.sources.files import well_formed
from rewardsteer.data.sources.reading import Reading, read_rows
from rewardsteer.records import Comparison

HUB = "HuggingFaceH4/ultrafeedback_binarized"


def load(
    split: str, *, path: str | None = None, score_margin: bool = False,
    reading: Reading | None = None,
) -> Iterator[Comparison]:
    """Preference rows of the ``train_prefs`` and ``test_prefs`` splits.

    Args:
        split: ``train`` or ``test``.
        path: local file or folder.
        score_margin: take ``score_chosen − score_rejected`` as the margin.
    """
    reading = reading or Reading()
    rows = read_rows(
        split, path, HUB, hub_splits={"train": "train_prefs", "test": "test_prefs"},
        reading=reading,
    )
    for index, (place, row) in enumerate(rows):
        comparison = None
        with reading.row():
            comparison = from_conversations(
                row, place, id=f"ultrafeedback-{split}-{index}", source="ultrafeedback"
            )
            if score_margin and comparison is not None:
                with well_formed(place):
                    margin = float(row["score_chosen"]) - float(row["score_rejected"])
                comparison = comparison.model_copy(update={"margin": margin})
        if comparison is not None:
            yield comparison
