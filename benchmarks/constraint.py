"""The maximum constraint: one pass over a response against one row per prefix, same loss."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import side_by_side
from rewardsteer.data.collate import PairCollator, to_batch
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.objectives.max_constraint import max_constraint

SHAPES = {"TL;DR shape (prompt 350, response 35)": (350, 35), "150 / 60": (150, 60)}


def run() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(
        vocab_size=4000, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=1024, tie_word_embeddings=False,
    ))
    model = RewardModel(base, HeadConfig(kind="vocabulary"))
    return [_case(name, model, *shape) for name, shape in SHAPES.items()]


def _case(name: str, model: RewardModel, prompt: int, response: int) -> dict[str, Any]:
    row = {
        "id": "0", "prompt_ids": torch.randint(3, 4000, (prompt,)).tolist(),
        "chosen_ids": torch.randint(3, 4000, (response,)).tolist(), "margin": 0.0,
        "chosen_lengths": list(range(11, response)),
    }
    whole = to_batch(PairCollator(0, paired=False, prefixes="chosen_lengths")([row]))

    def one_pass() -> None:
        model.zero_grad()
        max_constraint(model(whole), whole).loss.backward()

    def row_per_prefix() -> None:
        model.zero_grad()
        prefixes = [
            row | {"chosen_ids": row["chosen_ids"][:length], "chosen_lengths": [length]}
            for length in row["chosen_lengths"]
        ]
        batch = to_batch(PairCollator(0, paired=False, prefixes="chosen_lengths")(prefixes))
        max_constraint(model(batch), batch).loss.backward()

    return side_by_side(
        f"constraint, {name}", one_pass, row_per_prefix, work=len(row["chosen_lengths"]),
        unit="prefixes/s",
    )
