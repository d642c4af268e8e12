"""Preparation and training of a real chat model: what the rows are, what moves, what is saved."""

import math

import pytest
import torch
from datasets import load_dataset
from safetensors import safe_open
from transformers import AutoTokenizer

from rewardsteer.outputs import read_json
from tests.real.conftest import read_lines


def tensors(folder):
    values = {}
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as stream:
            values |= {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    return values


def test_rows_are_the_models_own_chat_format(root, smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert read_json(root / "data" / "manifest.json")["template"]["kind"] == "chat"
    files = [str(file) for file in sorted((root / "data" / "train").glob("full*.parquet"))]
    rows = load_dataset("parquet", data_files=files, split="train")
    pairs = {row["id"]: row for row in read_lines(root / "pairs.jsonl")}
    assert len(rows) > 30
    for row in list(rows)[:10]:
        pair = pairs[row["id"]]
        for side in ("chosen", "rejected"):
            expected = tokenizer.apply_chat_template(pair["prompt"] + pair[side], tokenize=False)
            ids = [*row["prompt_ids"], *row[f"{side}_ids"]]
            assert ids == tokenizer(expected, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("how", ["whole", "lora"])
@pytest.mark.parametrize("recipe", ["bt", "farma", "goal"])
def test_a_few_updates_move_the_weights(trained, recipe, how):
    folder = trained(recipe, how)
    lines = [row for row in read_lines(folder.parent / "metrics.jsonl") if "loss" in row]
    assert lines
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in lines)
    before, after = tensors(trained.base(recipe, how)), tensors(folder)
    # Two updates at this rate move nearly every weight that training may change, also where the
    # base is in bfloat16; the saved folder keeps the base's type, whose steps are coarse.
    name = next(name for name in after if name.endswith("layers.5.mlp.down_proj.weight"))
    assert after[name].dtype == before[name].dtype == torch.bfloat16
    moved = (after[name] != before[name]).float().mean()
    assert moved > (0.3 if how == "lora" else 0.05)
    head = after["lm_head.weight" if recipe == "farma" else "score.weight"]
    assert head.float().isfinite().all()
    assert head.float().std() > 0
