"""Trainings whose losses and folders were written down; ``python -m tests.training.recorded``
writes them anew."""

import json
import tempfile
from pathlib import Path
from typing import Any

from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.run import train
from tests.training import engines

PLACE = Path(__file__).with_name("recorded.json")
# Figures that depend on the machine.
_MACHINE = ("memory", "seconds", "second", "runtime", "time", "flos")


def _phase(*names: str, **options: Any) -> dict[str, Any]:
    return {"objective": [{"name": name, "options": options.get(name, {})} for name in names]}


_VOCABULARY = {"kind": "vocabulary"}
_BT, _MAX = _phase("bradley_terry"), _phase("max_constraint")
RUNS: dict[str, dict[str, Any]] = {
    "bradley_terry": {"phases": [_phase("bradley_terry", bradley_terry={
        "center_coefficient": 0.1,
    })]},
    "bradley_terry vocabulary": {"head": _VOCABULARY, "phases": [_BT]},
    "bradley_terry plain rows": {"phases": [_BT], "packing": "off", "padding_side": "left"},
    "partial": {"phases": [_phase("partial")]},
    "autoregressive": {"head": _VOCABULARY, "phases": [_phase("autoregressive")]},
    "farma": {
        "head": _VOCABULARY, "phases": [_BT | {"rows": 16}, _MAX | {"rows": 8}], "rounds": 2,
        "last_phase": "bradley_terry",
    },
    "farma prefix rows": {
        "head": _VOCABULARY, "phases": [_MAX | {"rows": 8, "prefix_rows": 24}],
    },
    "farma summed": {
        "head": _VOCABULARY, "phases": [_phase("bradley_terry", "max_constraint")],
    },
    **{
        f"goal {form}": {"phases": [_phase("bradley_terry", "goal_contrastive", goal_contrastive={
            "form": form, "positives": 4, "negatives": 4,
        })]}
        for form in ("future", "infonce", "published")
    },
    "mlp head": {"head": {"kind": "scalar", "layers": "mlp"}, "phases": [_BT]},
    "lora": {"phases": [_BT], "lora": {"rank": 2, "merge": False}},
    "lora merged": {"head": _VOCABULARY, "phases": [_BT], "lora": {"rank": 2}},
    "accumulated by length": {
        "phases": [_BT],
        "optimiser": {
            "learning_rate": 1e-3, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2, "train_sampling_strategy": "group_by_length",
        },
    },
}
KINDS = {
    "llama": tuple(RUNS),
    # Its layers, adapters and output embeddings are other classes.
    "gpt2": ("bradley_terry", "farma", "goal infonce", "autoregressive", "lora"),
}


def make_world(root: Path, kind: str) -> Path:
    """A tiny base model and prepared arithmetic pairs."""
    return engines.make_world(root / kind, kind, rows=40, seed=3)


def run(world: Path, name: str, out: Path) -> dict[str, Any]:
    """Log lines and the final folder of one training, as they are written down."""
    config = TrainConfig.model_validate({
        "base_model": str(world / "base"), "prepared": str(world / "data"),
        "optimiser": {"learning_rate": 1e-3, "per_device_train_batch_size": 4},
        "log": {"progress": False, "logging_steps": 1, "print_logs": False},
    } | RUNS[name])
    folder = train(config, out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open(encoding="utf-8")]
    weights = RewardModel.from_pretrained(folder).state_dict()
    return {
        "log": [
            {
                field: value for field, value in line.items()
                if not any(part in field for part in _MACHINE)
            }
            for line in lines
        ],
        "files": sorted(path.name for path in folder.iterdir()),
        "weights": {
            name: [list(value.shape), str(value.dtype), float(value.double().abs().mean())]
            for name, value in weights.items()
        },
        "card": _card(folder),
    }


def _card(folder: Path) -> dict[str, Any]:
    """What does not change with versions and places."""
    card = json.loads((folder / "rewardsteer.json").read_text(encoding="utf-8"))
    for field in ("versions", "base_model", "base_fingerprint", "data_fingerprint"):
        card.pop(field, None)
    return dict(card)


def main() -> None:
    """Write all results down."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind, names in KINDS.items():
            world = make_world(Path(name), kind)
            found[kind] = {
                run_name: run(world, run_name, world / f"run-{number}")
                for number, run_name in enumerate(names)
            }
    PLACE.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
