"""Policy and reward model on one backbone, against two models: memory and speed."""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.backbones import Backbone
from benchmarks.harness import Row, alone, device, held_memory, side_by_side
from benchmarks.words import word_tokenizer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.models.adapter_folder import base_fingerprint
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer
from rewardsteer.models.shared_backbone import SharedScorer
from rewardsteer.training.adapters import add_adapters
from rewardsteer.training.config import LoraSettings
from rewardsteer.training.memory import peak_memory, reset_peak_memory

# Head → decoding method.
METHODS: dict[str, str] = {"vocabulary": "farma", "scalar": "args"}


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    backbone: Backbone
    prompt: int
    new: int
    batch: int
    rank: int
    runs: int


SIZES = Sizes(Backbone(8, 512, 32_000), prompt=128, new=32, batch=8, rank=16, runs=3)
SETUP = (
    f"{SIZES.backbone}, adapters of rank {SIZES.rank} on all linear layers; float32, prompt "
    f"{SIZES.prompt}, {SIZES.new} new tokens, batch {SIZES.batch}, args with 10 candidates. Two "
    "models: the adapters merged into a copy of the weights. Memory is that of loading and "
    "generating; a vocabulary head is a second output layer on both sides."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Tokens per second and peak memory with each kind of head."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, method in METHODS.items():
            place = Path(folder) / kind
            save(sizes, place, kind)
            one, two = (Answers(sizes, place, kind, side) for side in ("one", "two"))
            rows.append(side_by_side(
                f"{method}, one backbone against two models", one.give, two.give,
                work=sizes.batch * sizes.new, unit="tokens/s", runs=sizes.runs,
            ))
            del one, two
            ours, other = (alone("benchmarks.shared", side, kind, place) for side in ("one", "two"))
            rows.append({
                "case": f"peak memory, {method}", "ours": ours, "other": other,
                "ratio": other / max(ours, 1.0), "unit": "MiB",
            })
    return rows


def save(sizes: Sizes, folder: Path, kind: str) -> None:
    """Save a policy, a reward model as adapters on it and as a merged model, with tokenizers."""
    policy, tokenizer = sizes.backbone.causal_lm(), word_tokenizer(sizes.backbone.vocabulary)
    # No token ends a response, so that both sides generate as many.
    policy.generation_config.eos_token_id = None
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    head = HeadConfig(kind=kind)
    model = RewardModel.from_base(folder / "policy", head)
    add_adapters(model, LoraSettings(rank=sizes.rank, merge=False))
    card = CheckpointCard(
        head=head, base_model=str(folder / "policy"),
        base_fingerprint=base_fingerprint(str(folder / "policy")),
    )
    model.save_pretrained(folder / "adapter", tokenizer, card)
    model.merge_adapters()
    model.save_pretrained(folder / "whole", tokenizer, CheckpointCard(head=head))


class Answers:
    """A policy and a reward model, loaded, and prompts to answer."""

    def __init__(self, sizes: Sizes, folder: Path, kind: str, side: str) -> None:
        self.policy: Any = load_policy(folder / "policy", device=device())
        if side == "one":
            scorer: Scorer = SharedScorer(self.policy, str(folder / "policy"), folder / "adapter")
        else:
            scorer = load_scorer(folder / "whole", device=device())
        self.tokenizer = scorer.tokenizer
        self.config = DecodingConfig(
            method=METHODS[kind], mode="greedy", max_new_tokens=sizes.new, batch_size=sizes.batch
        )
        self.method = build_method(self.config, scorer)
        ids = torch.randint(
            2, sizes.backbone.vocabulary, (sizes.batch, sizes.prompt),
            generator=torch.Generator().manual_seed(0),
        )
        self.requests = [
            Request(id=str(row), prompt="", prompt_ids=one) for row, one in enumerate(ids.tolist())
        ]

    def give(self) -> None:
        """Generate all answers."""
        list(generate(self.policy, self.tokenizer, self.requests, self.method, self.config))


def measure(side: str, kind: str, folder: str, sizes: Sizes = SIZES) -> None:
    """Print the peak memory of loading and generating in MiB, beyond that held before."""
    before = held_memory()
    reset_peak_memory()
    Answers(sizes, Path(folder), kind, side).give()
    print(json.dumps(max(peak_memory() - before, 0.0)))


if __name__ == "__main__":
    measure(sys.argv[1], sys.argv[2], sys.argv[3])  # type: ignore[arg-type]
