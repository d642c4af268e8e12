"""Checkpoints of published code as reward models: FaRMA's and goal-conditioned-rm's folders.

FaRMA saves a causal language model whose logits are rewards. goal-conditioned-rm saves a backbone
with a ``value_head``: one linear layer, or an MLP.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from rewardsteer.data.template import Template, resolve
from rewardsteer.errors import CheckpointError
from rewardsteer.models.checkpoint import (
    VALUE_HEAD,
    CheckpointCard,
    load_tokenizer,
    write_card,
)
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.outputs import read_json, write_json

_INDEX = "model.safetensors.index.json"


def import_checkpoint(source: Path, out: Path, template: Template | None = None) -> CheckpointCard:
    """Write a published checkpoint as a reward model's folder.

    Args:
        source: the published folder, with weights as safetensors.
        out: the folder to make; it must not exist.
        template: how the published code wrote prompts and responses; None: ``auto``.

    Returns:
        the card.

    Raises:
        CheckpointError: the folder holds no such checkpoint, or its weights are no safetensors.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shards = sorted(source.glob("*.safetensors"))
    if not shards or not (source / "config.json").exists():
        raise CheckpointError(
            f"Expected config.json and weights (*.safetensors) in {source}; weights in another "
            "form have to be saved again with safe_serialization=True."
        )
    head = _head_of(shards, source)
    tokenizer = load_tokenizer(source)
    card = CheckpointCard(
        head=head, base_model=str(source),
        template=resolve(template or Template(), tokenizer).model_dump(mode="json"),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for file in source.iterdir():
            if file.is_file() and file.suffix in (".json", ".txt", ".model", ".jinja"):
                shutil.copyfile(file, temporary / file.name)
        config: dict[str, Any] = read_json(source / "config.json")
        if head.head_class.pipeline_tag == "text-classification":
            kind = type(AutoConfig.from_pretrained(str(source), trust_remote_code=False))
            known = AutoModelForSequenceClassification._model_mapping
            if kind not in known:
                raise CheckpointError(f"transformers has no classifier for {config['model_type']}.")
            config |= {"architectures": [known[kind].__name__], "id2label": {"0": "LABEL_0"},
                       "label2id": {"LABEL_0": 0}}
        write_json(temporary / "config.json", config)
        _write_weights(shards, temporary, head)
        write_card(temporary, card)
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def _head_of(shards: list[Path], source: Path) -> HeadConfig:
    from safetensors import safe_open

    names: set[str] = set()
    for shard in shards:
        with safe_open(shard, framework="pt") as weights:
            names.update(weights.keys())
    if any(name.startswith("value_head.") for name in names):
        layers = "linear" if "value_head.weight" in names else "mlp"
        return HeadConfig(kind="scalar", layers=layers)
    named = read_json(source / "config.json").get("architectures") or ["none"]
    if str(named[0]).endswith("ForCausalLM"):
        return HeadConfig(kind="vocabulary")
    raise CheckpointError(
        f"Expected a checkpoint of FaRMA (a causal language model) or goal-conditioned-rm (with a "
        f"value_head) in {source}; got {named[0]} without a value_head."
    )


def _write_weights(shards: list[Path], out: Path, head: HeadConfig) -> None:
    """The shards with the names that transformers knows; an MLP head in a file of its own."""
    import torch
    from safetensors.torch import load_file, save_file

    places: dict[str, str] = {}
    mlp: dict[str, torch.Tensor] = {}
    width = 0
    for shard in shards:
        kept: dict[str, torch.Tensor] = {}
        for name, value in load_file(shard).items():
            if not name.startswith("value_head."):
                kept[name] = value
            elif head.layers == "linear":
                kept[name.replace("value_head.", "score.")] = value
            else:
                mlp[name.removeprefix("value_head.")] = value
                width = max(width, value.shape[-1])
        if head.layers == "mlp" and mlp and shard == shards[-1]:
            # The folder is a classifier's, whose own layer is not read.
            kept["score.weight"] = torch.zeros(1, width)
        save_file(kept, out / shard.name, metadata={"format": "pt"})
        places |= dict.fromkeys(kept, shard.name)
    if mlp:
        save_file(mlp, out / VALUE_HEAD)
    if len(shards) > 1:
        write_json(out / _INDEX, {"metadata": {}, "weight_map": places})
