"""Cheaper guides against full guidance and the policy alone: gates, low-rank heads, heads on the
policy's own states, drafts."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.backbones import Backbone
from benchmarks.harness import Row, device, in_turn, spread, timed
from benchmarks.words import word_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.models.adapter_folder import base_fingerprint
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.policy_states import PolicyStateScorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer

RANK = 16
LOW_RANK = HeadConfig(kind="vocabulary", layers="low_rank", rank=RANK)
ALONE, FULL = "policy alone", "full guidance"
# Name → head and further decoding settings. A guidance weight of almost 0 makes the policy accept
# every drafted token; a trained guide lies between this case and random models.
GUIDES: dict[str, tuple[str | None, dict[str, Any]]] = {
    ALONE: (None, {}),
    FULL: ("full", {}),
    "gate open at 30 % of tokens": ("full", {"gate": "random", "gate_share": 0.3}),
    "gate open at 10 % of tokens": ("full", {"gate": "random", "gate_share": 0.1}),
    "low-rank head": ("low rank", {}),
    "head on the policy's states": ("states", {}),
    "policy drafts, all accepted": ("full", {"draft": "policy", "weight": 1e-6}),
    "policy drafts, random models": ("full", {"draft": "policy"}),
}


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    backbone: Backbone
    prompt: int
    new: int
    batches: tuple[int, ...]
    runs: int


SIZES = Sizes(Backbone(8, 512, 32_000), prompt=128, new=64, batches=(1, 8, 32), runs=3)
SETUP = (
    f"Policy and reward model: {SIZES.backbone}, random weights; FaRMA's decoding, float32, "
    f"sampled, prompt {SIZES.prompt}, {SIZES.new} new tokens, heads of rank {RANK}, drafts of 4 "
    "tokens. A gate opens at random, so that its share is exact; a real one also measures the "
    "policy's logits. The ratio is the speed over that of full guidance. Over the policy alone: "
    "the guide's time per token over that of the same engine without a guide."
)


def run(sizes: Sizes = SIZES) -> list[Row]:
    """A row for each guide and batch, in tokens per second."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(sizes, Path(folder))
        return [row for batch in sizes.batches for row in _measure(bench, batch)]


class Bench:
    """The models, each made once."""

    def __init__(self, sizes: Sizes, folder: Path) -> None:
        self.sizes, backbone = sizes, sizes.backbone
        self.tokenizer = word_tokenizer(backbone.vocabulary)
        save(backbone, self.tokenizer, folder)
        self.policy: Any = load_policy(folder / "policy", device=device())
        template = Template(append_eos=False)
        self.scorers: dict[str | None, Any] = {None: None} | {
            name: Scorer(
                RewardModel(backbone.causal_lm().to(device()).eval(), head), self.tokenizer,
                template, objective="max_constraint",
            )
            for name, head in (("full", HeadConfig(kind="vocabulary")), ("low rank", LOW_RANK))
        } | {"states": PolicyStateScorer(self.policy, str(folder / "policy"), folder / "states")}

    def answer(self, name: str, batch: int) -> None:
        """Answer as many prompts as a batch holds."""
        head, options = GUIDES[name]
        config = DecodingConfig(
            method="none" if head is None else "farma", mode="sample", batch_size=batch,
            max_new_tokens=self.sizes.new, **options,
        )
        ids = torch.randint(
            2, self.sizes.backbone.vocabulary, (batch, self.sizes.prompt),
            generator=torch.Generator().manual_seed(0),
        )
        requests = [
            Request(id=str(row), prompt="", prompt_ids=one) for row, one in enumerate(ids.tolist())
        ]
        method = build_method(config, self.scorers[head])
        answers = list(generate(self.policy, self.tokenizer, requests, method, config))
        if any(len(one.token_ids) != self.sizes.new for one in answers):
            raise RuntimeError(f"{name} generated another number of tokens than {self.sizes.new}")


def save(backbone: Backbone, tokenizer: Any, folder: Path) -> None:
    """A policy, and a low-rank head on its states."""
    policy = backbone.causal_lm()
    # No token ends a response, so that all guides generate as many.
    policy.generation_config.eos_token_id = None
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    base = str(folder / "policy")
    RewardModel.from_base(base, LOW_RANK).save_pretrained(
        folder / "states", tokenizer,
        CheckpointCard(
            head=LOW_RANK, base_model=base, base_fingerprint=base_fingerprint(base),
            objective="max_constraint",
        ),
    )


def _measure(bench: Bench, batch: int) -> list[Row]:
    bench.answer(FULL, batch)  # the first pass of a size is slower
    sides = [partial(timed, partial(bench.answer, name, batch)) for name in GUIDES]
    columns = zip(*in_turn(sides, bench.sizes.runs), strict=True)
    seconds = dict(zip(GUIDES, columns, strict=True))
    return [
        _row(f"{name}, batch {batch}", own, seconds, batch * bench.sizes.new)
        for name, own in seconds.items() if name != ALONE
    ]


def _row(
    case: str, own: Sequence[float], seconds: dict[str, tuple[float, ...]], tokens: int
) -> Row:
    full, alone = seconds[FULL], seconds[ALONE]
    return {
        "case": case, "ours": tokens / statistics.median(own),
        "other": tokens / statistics.median(full),
        **spread([other / mine for mine, other in zip(own, full, strict=True)]),
        "unit": "tokens/s", "ms/token": 1000 * statistics.median(own) / tokens,
        "over the policy alone": statistics.median(
            [mine / least for mine, least in zip(own, alone, strict=True)]
        ),
    }
