"""Guided decoding: caches and batches against the published style (batch 1, nothing kept)."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.harness import side_by_side
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer

PROMPT, NEW, ROWS = 200, 16, 4


def run() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=1024, eos_token_id=1, pad_token_id=0,
    )
    policy = LlamaForCausalLM(shape).eval()
    reward = LlamaForCausalLM(shape).eval()
    scorer = Scorer(RewardModel(reward, HeadConfig(kind="vocabulary")), tokenizer, Template())
    prompts = torch.randint(2, len(tokenizer), (ROWS, PROMPT)).tolist()
    config = DecodingConfig(
        method="farma", mode="greedy", max_new_tokens=NEW, batch_size=ROWS, top_k=0
    )
    requests = [Request(id=str(i), prompt="", prompt_ids=ids) for i, ids in enumerate(prompts)]

    def ours() -> None:
        list(generate(policy, tokenizer, requests, build_method(config, scorer), config))

    @torch.no_grad()
    def plain() -> None:
        for ids in prompts:
            tokens = torch.tensor([ids])
            for _ in range(NEW):
                scores = policy(tokens, use_cache=False).logits[0, -1]
                scores = scores + reward(tokens, use_cache=False).logits[0, -1]
                tokens = torch.cat([tokens, scores.argmax().view(1, 1)], dim=1)

    return [side_by_side(
        f"farma greedy, prompt {PROMPT}, {NEW} new, {ROWS} rows", ours, plain, work=ROWS * NEW,
        unit="tokens/s",
    )]
