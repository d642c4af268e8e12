"""The model card: ``README.md`` beside the weights, for people and for the Hugging Face hub.

Everything in it comes from ``rewardsteer.json``. It names data, it never quotes it.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.outputs import read_json, write_text

if TYPE_CHECKING:
    from rewardsteer.models.checkpoint import CheckpointCard

MODEL_CARD = "README.md"
# Whoever edits the card takes this line out, and it is never written again.
MARK = "<!-- Written by rewardsteer. Remove this line to keep a text of your own. -->"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def write_model_card(folder: Path, card: "CheckpointCard") -> None:
    """Write ``README.md``, unless one without our mark is there."""
    place = folder / MODEL_CARD
    if not place.exists() or MARK in place.read_text(encoding="utf-8"):
        write_text(place, model_card(card, _architecture(folder)))


def _architecture(folder: Path) -> str:
    """The class that a folder names; "" for an adapter."""
    place = folder / "config.json"
    return str(read_json(place)["architectures"][0]) if place.exists() else ""


def model_card(card: "CheckpointCard", architecture: str = "") -> str:
    """The text of the model card, its YAML block included; ``architecture`` is the class that the
    folder's ``config.json`` names."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    head = card.head.head_class
    base = card.base_model if card.base_on_hub else None
    data = ModelCardData(
        base_model=base, library_name="transformers", model_name="reward model",
        pipeline_tag=head.pipeline_tag,
        tags=["reward-model", "rewardsteer", *filter(None, card.objective.split("+"))],
        eval_results=[
            EvalResult(
                task_type="text-classification", dataset_type=metric.on, dataset_name=metric.on,
                metric_type=metric.name, metric_value=metric.value,
            )
            for metric in card.metrics
        ] or None,
    )
    template = (Path(__file__).parent / "model_card.md.j2").read_text(encoding="utf-8")
    text = ModelCard.from_template(
        data, template_str=template, mark=MARK, card=card, base=base,
        kind=head.summary, head=head.label(card.head),
        position=_position(card.template),
        table=[_row(metric) for metric in card.metrics], loads=_loads(card, architecture),
    )
    return str(text).rstrip() + "\n"


def hub_name(base_model: str) -> str | None:
    """The base model's name on the hub; None for a local folder, whose path concerns nobody."""
    local = Path(base_model).exists() or not _HUB_NAME.fullmatch(base_model)
    return None if local else base_model


def base_licence(base_model: str) -> str:
    """The licence in the base model's own card, where that lies in its folder or in the hub's
    cache; "" when it does not. Nothing is fetched."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    place: Any = Path(base_model) / MODEL_CARD
    if hub_name(base_model) is not None:
        place = try_to_load_from_cache(base_model, MODEL_CARD)
    if not isinstance(place, str | Path) or not Path(place).is_file():
        return ""
    try:
        licence = ModelCard.load(place, ignore_metadata_errors=True).data.get("license")
    except ValueError:  # a card whose YAML block is damaged names no licence
        return ""
    return licence if isinstance(licence, str) else ""


def _loads(card: "CheckpointCard", architecture: str) -> str:
    """Which section on loading fits: the folder's own architecture, or our code alone."""
    import transformers

    section: str = card.head.head_class.loading(card.head)
    if section == "classifier" and architecture and not hasattr(transformers, architecture):
        return "backbone"
    return section


def _position(template: dict[str, Any]) -> str:
    """Where the reward of a complete response is computed."""
    if not template.get("append_eos", True):
        return "its last token"
    if template.get("kind") == "chat" and template.get("end") == "template":
        return "the last token that the tokenizer's chat template writes after it"
    return "the end-of-text token after it"


def _row(metric: Any) -> dict[str, str]:
    interval = "" if metric.low is None else f"{metric.low:.3f} – {metric.high:.3f}"
    return {
        "name": metric.name, "on": metric.on, "value": f"{metric.value:.3f}",
        "interval": interval, "count": f"{metric.count:,}" if metric.count else "",
    }
