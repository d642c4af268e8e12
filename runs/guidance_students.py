"""Students of a candidate guide, distilled on the records that the first of them makes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rewardsteer.distillation.config import DistilConfig
from rewardsteer.distillation.run import distil
from rewardsteer.models.checkpoint import CARD
from rewardsteer.outputs import write_text


def distil_all(
    prompts: Iterable[str], students: Mapping[str, Mapping[str, Any]], out: Path, **shared: Any
) -> tuple[dict[str, Path], Path]:
    """Distil what is not there yet.

    Args:
        prompts: from which the policy samples; equal ones count once.
        students: name → settings of `DistilConfig` that are its own.
        out: where the folders go.
        shared: settings of all.

    Returns:
        Student → folder, and the folder of the records.
    """
    listed = out / "prompts.jsonl"
    asked = dict.fromkeys(prompts)
    write_text(listed, "".join(json.dumps({"prompt": one}) + "\n" for one in asked))
    places = {name: out / name.replace(" ", "-") for name in students}
    records = next(iter(places.values())) / "records"
    for index, (name, own) in enumerate(students.items()):
        source = {"records": str(records)} if index else {"prompts": str(listed)}
        if not (places[name] / "model" / CARD).exists():
            print("distilling", name, flush=True)
            settings = DistilConfig.model_validate({**shared, **own, **source})
            distil(settings, places[name], resume=places[name].exists())
    return {name: place / "model" for name, place in places.items()}, records
