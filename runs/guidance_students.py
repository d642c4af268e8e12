"""Students of a guide that scores candidates; the first one makes the records that all share."""

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
    """Distil the missing students.

    Args:
        prompts: prompts that the policy samples from; equal ones count once.
        students: name → the student's own settings of `DistilConfig`.
        out: the folder that the students' folders are in.
        shared: settings common to all students.

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
