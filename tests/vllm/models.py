"""A policy and reward models that vLLM can run on a CPU (heads of 32 numbers), and prompts."""

import json
import random
from pathlib import Path

import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import CHARACTERS, character_tokenizer, tiny_causal_lm

# The folders of reward models, their heads, what they say they were trained on, and the method.
REWARDS = {
    "farma": ("vocabulary", "max_constraint"),
    "genarm": ("vocabulary", "autoregressive"),
    "args": ("scalar", "bradley_terry"),
    "pargs": ("scalar", "partial"),
}
CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
WEIGHTS = (0.0, 0.5, 1.5, -1.0)
LENGTH = 256


def save_models(root: Path) -> Path:
    """``policy`` and a folder for each of `REWARDS`."""
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT
    for name, seed in (("policy", 0), ("base", 7)):
        model = tiny_causal_lm(vocab_size=len(tokenizer), hidden=64, seed=seed)
        model.config.pad_token_id = tokenizer.pad_token_id
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    for name, (head, objective) in REWARDS.items():
        torch.manual_seed(3)
        model = RewardModel.from_base(root / "base", HeadConfig(kind=head)).eval()
        card = CheckpointCard(
            head=HeadConfig(kind=head), objective=objective,
            template=Template(kind="text").model_dump(),
        )
        model.save_pretrained(root / name, tokenizer, card)
    return root


def make_requests(count: int, longest: int = 90) -> list[Request]:
    """Prompts of 1 to ``longest`` characters, some sharing their beginning."""
    rng = random.Random(count)
    shared = "".join(rng.choices(CHARACTERS, k=longest))
    tokenizer, requests = character_tokenizer(), []
    for number in range(count):
        length = rng.randint(1, longest)
        text = shared[:length] if number % 4 == 0 else "".join(rng.choices(CHARACTERS, k=length))
        requests.append(
            Request(id=f"r{number}", prompt=text, prompt_ids=tokenizer.encode(text))
        )
    return requests


def expected(
    root: Path, name: str, requests: list[Request], weight: float, new: int
) -> dict[str, list[int]]:
    """Greedy responses of the transformers engine by request."""
    config = DecodingConfig(
        method=(name if name in REWARDS else "farma") if weight else "none", mode="greedy",
        weight=weight, max_new_tokens=new, batch_size=64,
    )
    scorer = load_scorer(root / name) if weight else None
    policy = load_policy(root / "policy")
    method = build_method(config, scorer)
    done = generate(policy, character_tokenizer(), requests, method, config)
    return {one.id: one.token_ids for one in done}


def write_prompts(path: Path, requests: list[Request]) -> Path:
    """As 'rewardsteer generate' reads them."""
    path.write_text("".join(
        json.dumps({"id": one.id, "prompt": one.prompt}) + "\n" for one in requests
    ))
    return path
