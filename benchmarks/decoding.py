"""Guided decoding: caches and batches against the published style (batch 1, nothing kept)."""

from dataclasses import dataclass

import torch

from benchmarks.backbones import Backbone
from benchmarks.harness import Row, device, side_by_side
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    backbone: Backbone
    prompt: int
    new: int
    rows: int
    runs: int


SIZES = Sizes(
    backbone=Backbone(2, 128, len(build_tokenizer()), heads=4, feed_forward=256), prompt=200,
    new=16, rows=4, runs=5,
)
SETUP = f"Policy and reward model: {SIZES.backbone}; float32."


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Tokens per second of greedy generation."""
    tokenizer = build_tokenizer()
    policy, reward = sizes.backbone.causal_lm().eval(), sizes.backbone.causal_lm().eval()
    scorer = Scorer(RewardModel(reward, HeadConfig(kind="vocabulary")), tokenizer, Template())
    prompts = torch.randint(2, len(tokenizer), (sizes.rows, sizes.prompt)).tolist()
    config = DecodingConfig(
        method="farma", mode="greedy", max_new_tokens=sizes.new, batch_size=sizes.rows, top_k=0
    )
    requests = [Request(id=str(i), prompt="", prompt_ids=ids) for i, ids in enumerate(prompts)]

    def ours() -> None:
        list(generate(policy, tokenizer, requests, build_method(config, scorer), config))

    @torch.no_grad()
    def plain() -> None:
        for ids in prompts:
            tokens = torch.tensor([ids], device=device())
            for _ in range(sizes.new):
                scores = policy(tokens, use_cache=False).logits[0, -1]
                scores = scores + reward(tokens, use_cache=False).logits[0, -1]
                tokens = torch.cat([tokens, scores.argmax().view(1, 1)], dim=1)

    return [side_by_side(
        f"farma greedy, prompt {sizes.prompt}, {sizes.new} new, {sizes.rows} rows", ours, plain,
        work=sizes.rows * sizes.new, unit="tokens/s", runs=sizes.runs,
    )]
