"""Reward models kept as adapters: an ordinary peft folder, with the head among its weights."""

from pathlib import Path

from rewardsteer.errors import MismatchError
from rewardsteer.models.checkpoint import CheckpointCard, fingerprint


def base_fingerprint(source: str) -> str:
    """Of the weights of a model folder; "" of a hub name, which has no files to look at."""
    return fingerprint(Path(source)) if Path(source).is_dir() else ""


def check_base(card: CheckpointCard, folder: Path, source: str) -> None:
    """Refuse an adapter that was trained on another base model.

    Folders are compared by their weights, hub names by name.

    Args:
        card: the adapter's.
        folder: where it is, for the message.
        source: the base model at hand.

    Raises:
        MismatchError: it is not the one of training.
    """
    found = base_fingerprint(source)
    same = found == card.base_fingerprint if found and card.base_fingerprint else (
        source == card.base_model
    )
    if not same:
        raise MismatchError(
            f"The adapter in {folder} was trained on {card.base_model} "
            f"(weights {card.base_fingerprint or 'unknown'}), and {source} "
            f"(weights {found or 'unknown'}) is another model; use the base of training, or a "
            "reward model merged into whole weights (lora.merge=true)."
        )
