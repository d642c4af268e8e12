"""How often a reward model ranks held-out comparisons right."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.errors import MismatchError
from rewardsteer.evaluation.metrics import preference_accuracy
from rewardsteer.evaluation.statistics import proportion
from rewardsteer.models.scorer import Scorer


def evaluate_preference(
    scorer: Scorer, data: Path, *, split: str = "test", batch_size: int = 16
) -> dict[str, Any]:
    """Accuracy with a 95 % Wilson interval, whole and by subset, and the mean margin.

    Args:
        scorer: the reward model.
        data: a prepared folder, made with the reward model's tokenizer.
        split: ``test`` or ``train``.
        batch_size: rows read together.

    Returns:
        ``{"all": figures, "subsets": {name: figures}}``.

    Raises:
        MismatchError: the data was written with another template than the model's training data.
    """
    manifest = load_manifest(data)
    if manifest.template != scorer.template.model_dump(mode="json"):
        raise MismatchError(
            f"The data in {data} was written with another response template than the reward model "
            f"{scorer.name} was trained with; prepare it again with the template in the model's "
            "rewardsteer.json."
        )
    rows = load_set(data, split, "full")
    rewards = {
        side: scorer.score_ids(rows["prompt_ids"], rows[f"{side}_ids"], batch_size=batch_size)
        for side in ("chosen", "rejected")
    }
    groups: dict[str, list[int]] = defaultdict(list)
    for index, subset in enumerate(rows["subset"]):
        groups[subset or "none"].append(index)
    return {
        "all": _figures(rewards, list(range(len(rows)))),
        "subsets": {name: _figures(rewards, indices) for name, indices in sorted(groups.items())},
    }


def _figures(rewards: dict[str, np.ndarray], indices: list[int]) -> dict[str, float]:
    chosen, rejected = rewards["chosen"][indices], rewards["rejected"][indices]
    share = preference_accuracy(chosen.tolist(), rejected.tolist())
    accuracy = proportion(share * len(indices), len(indices))
    return {
        "count": len(indices),
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "margin": float((chosen - rejected).mean()),
    }
