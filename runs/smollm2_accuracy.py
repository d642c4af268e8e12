"""Add the accuracy of study A's reward models on held-out pairs to the results over seeds.

    rewardsteer evaluate runs OUT/seed-*/generation --out FILE
    python runs/smollm2_accuracy.py OUT FILE
"""

import sys
from pathlib import Path

from rewardsteer.models.checkpoint import CARD, read_card
from rewardsteer.outputs import read_json, write_json


def accuracies(out: Path) -> dict[str, list[float]]:
    """Accuracy of each reward model, a figure for each seed."""
    found: dict[str, list[float]] = {}
    for card in sorted(out.glob(f"seed-*/*/model/{CARD}")):
        for metric in read_card(card.parent).metrics:
            if metric.name == "accuracy":
                found.setdefault(card.parents[1].name, []).append(metric.value)
    return found


if __name__ == "__main__":
    file = Path(sys.argv[2])
    write_json(file, {**read_json(file), "accuracy": accuracies(Path(sys.argv[1]))})
