"""Guided decoding inside vLLM: against its floor, and against our transformers engine.

The floor is the time of vLLM with the policy alone plus that of vLLM with a model of the reward
model's size alone.

Each engine runs in a process of its own, since vLLM changes threads and memory of its process.
"""

import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.backbones import Backbone
from benchmarks.harness import CannotRun, Row, alone, in_turn, spread, timed
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.vllm_settings import guided_by
from rewardsteer.decoding.engines.vllm_start import start
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    backbone: Backbone
    requests: tuple[int, ...]
    prompt: int
    new: int
    runs: int


SIZES = Sizes(
    backbone=Backbone(4, 256, len(build_tokenizer()), heads=8), requests=(1, 8, 64, 256),
    prompt=100, new=32, runs=3,
)
SETUP = (
    f"Policy and reward model (farma): {SIZES.backbone}, random weights, float32, greedy; prompts "
    f"of {SIZES.prompt} tokens, {SIZES.new} new, all requests at once; one thread per process. "
    "Alone: the time of vLLM with the policy plus that of vLLM with the reward model as a causal "
    "model, both unguided. Host: time per step outside of the models' forward passes and heads."
)
# One thread: vLLM's threads wait for each other where they outnumber the processors.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Tokens per second by the number of requests, and the time outside the models."""
    if importlib.util.find_spec("vllm") is None:
        raise CannotRun("vLLM is not installed here; 'make bench TABLE=vllm' installs it.")
    with mock.patch.dict(os.environ, ENVIRONMENT):
        inside, ours = alone("benchmarks.vllm", "vllm"), alone("benchmarks.vllm", "transformers")
    rows: list[Row] = []
    for index, count in enumerate(sizes.requests):
        tokens = count * sizes.new
        runs, transformers = inside[index], ours[index]
        guided = [one["guided"] for one in runs]
        floor = [one["policy"] + one["reward"] for one in runs]
        rows.append({
            "case": f"{count} requests: guided vLLM against both models alone",
            **_speeds(tokens, guided, floor),
            "host, ms per step": 1000 * statistics.median(one["guided host"] for one in runs),
            "of the policy alone": 1000 * statistics.median(one["policy host"] for one in runs),
        })
        rows.append({
            "case": f"{count} requests: guided vLLM against the transformers engine", **_speeds(
                tokens, guided, transformers
            ),
        })
    return rows


def _speeds(tokens: int, ours: list[float], other: list[float]) -> Row:
    ratios = [second / first for first, second in zip(ours, other, strict=True)]
    return {
        "ours": tokens / statistics.median(ours), "other": tokens / statistics.median(other),
        "unit": "tokens/s", **spread(ratios),
    }


def measure(engine: str, sizes: Sizes = SIZES) -> None:
    """Print, for each number of requests, the seconds of every run."""
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    with tempfile.TemporaryDirectory() as name:
        save_models(Path(name), sizes.backbone)
        sides = _vllm if engine == "vllm" else _transformers
        found = [
            sides(Path(name), prompts, sizes) for prompts in (
                torch.randint(2, len(tokenizer), (count, sizes.prompt)).tolist()
                for count in sizes.requests
            )
        ]
    print(json.dumps(found), flush=True)


def save_models(folder: Path, backbone: Backbone) -> None:
    """Save ``policy``, ``reward`` (a vocabulary head) and ``scalar``, without end-of-text."""
    tokenizer = build_tokenizer()
    policy = backbone.causal_lm()
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    for name, kind in (("reward", "vocabulary"), ("scalar", "scalar")):
        reward = RewardModel.from_base(folder / "policy", HeadConfig(kind=kind))
        with torch.no_grad():
            for parameter in reward.carrier.parameters():
                parameter.mul_(1.1)
        card = CheckpointCard(
            head=HeadConfig(kind=kind), template=Template().model_dump(mode="json"),
            objective="bradley_terry",
        )
        reward.save_pretrained(folder / name, tokenizer, card)


def _transformers(folder: Path, prompts: list[list[int]], sizes: Sizes) -> list[float]:
    tokenizer, policy = build_tokenizer(), load_policy(folder / "policy")
    policy.generation_config.eos_token_id = tokenizer.eos_token = None
    scorer = load_scorer(folder / "reward")
    config = DecodingConfig(
        method="farma", mode="greedy", max_new_tokens=sizes.new, batch_size=len(prompts), top_k=0
    )
    requests = [Request(id=str(i), prompt="", prompt_ids=ids) for i, ids in enumerate(prompts)]

    def answer() -> None:
        list(generate(policy, tokenizer, requests, build_method(config, scorer), config))

    answer()
    return [timed(answer) for _ in range(sizes.runs)]


def _vllm(folder: Path, prompts: list[list[int]], sizes: Sizes) -> list[dict[str, float]]:
    from vllm import SamplingParams

    sides = _engines(str(folder), max(sizes.requests), sizes.prompt + sizes.new)
    asked = [{"prompt_token_ids": ids} for ids in prompts]
    hosts: dict[str, list[float]] = defaultdict(list)

    def seconds(name: str) -> float:
        parameters = SamplingParams(
            temperature=0, max_tokens=sizes.new, ignore_eos=True, detokenize=False,
            extra_args={"reward_weight": 1.0} if name == "guided" else None,
        )
        llm, clock = sides[name]
        # With the prefix cache of one run, the next would not compute its prompts.
        llm.reset_prefix_cache()
        clock.seconds, clock.steps = 0.0, 0
        took = timed(lambda: llm.generate(asked, parameters, use_tqdm=False))
        hosts[name].append((took - clock.seconds) / clock.steps)
        return took

    for name in sides:
        seconds(name)
    hosts.clear()
    times = in_turn([partial(seconds, name) for name in sides], sizes.runs)
    return [
        dict(zip(sides, took, strict=True)) | {f"{name} host": hosts[name][run] for name in sides}
        for run, took in enumerate(times)
    ]


class _Clock:
    """Seconds spent in a model's forward passes and heads, and how many steps there were."""

    def __init__(self, llm: Any) -> None:
        self.seconds, self.steps = 0.0, 0
        llm.apply_model(self._wrap)

    def _wrap(self, model: Any) -> None:
        for name in ("forward", "compute_logits", "reward_logits"):
            if hasattr(model, name):
                setattr(model, name, self._clocked(name, getattr(model, name)))

    def _clocked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - began
                self.steps += name == "forward"

        return call


_running: dict[str, tuple[Any, _Clock]] = {}


def _engines(folder: str, requests: int, longest: int) -> dict[str, tuple[Any, _Clock]]:
    """The guided policy, and both models alone; started once for all numbers of requests."""
    parts: dict[str, tuple[str, dict[str, Any]]] = {
        "guided": ("policy", {"hf_overrides": guided_by([f"{folder}/reward"])}),
        "policy": ("policy", {}), "reward": ("reward", {}),
    }
    for name, (model, more) in parts.items():
        if name not in _running:
            llm = start(
                f"{folder}/{model}", dtype="float32", enforce_eager=True, max_model_len=longest,
                max_num_seqs=requests, distributed_executor_backend="uni", **more,
            )
            _running[name] = llm, _Clock(llm)
    return _running


if __name__ == "__main__":
    measure(sys.argv[1])
