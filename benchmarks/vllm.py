"""Guided decoding inside vLLM: against vLLM unguided, and against our transformers engine.

Each engine runs in a process of its own, since vLLM arranges threads and memory as it likes.
"""

import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.backbones import Backbone
from benchmarks.harness import CannotRun, Row, alone, in_turn, spread, timed
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.hf import load_policy
from rewardsteer.decoding.engines.vllm_engine import PROCESSOR, start
from rewardsteer.decoding.engines.vllm_requests import MODELS
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.prefix_reader import PrefixReader
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.models.scorer import Scorer


@dataclass(frozen=True)
class Sizes:
    """What the table measures."""

    backbone: Backbone
    requests: tuple[int, ...]
    prompt: int
    new: int
    runs: int


SIZES = Sizes(
    backbone=Backbone(4, 256, len(build_tokenizer()), heads=8), requests=(1, 8, 64), prompt=100,
    new=32, runs=5,
)
SETUP = (
    f"Policy and reward model (farma): {SIZES.backbone}, random weights, float32, greedy; prompts "
    f"of {SIZES.prompt} tokens, {SIZES.new} new, all requests at once; one thread each. The "
    "overhead is the time that guided takes above unguided vLLM: the reward model's forward passes "
    "with its head, keeping its cache, and the rest."
)
# vLLM's threads wait for each other where there are more of them than processors.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def run(sizes: Sizes = SIZES) -> list[Row]:
    """Tokens per second by the number of requests, and where the overhead goes."""
    if importlib.util.find_spec("vllm") is None:
        raise CannotRun("vLLM is not installed here; 'make bench TABLE=vllm' installs it.")
    with mock.patch.dict(os.environ, _ENVIRONMENT):
        inside, ours = alone("benchmarks.vllm", "vllm"), alone("benchmarks.vllm", "transformers")
    rows: list[Row] = []
    for index, count in enumerate(sizes.requests):
        tokens = count * sizes.new
        runs, transformers = inside[index], ours[index]
        guided, plain = ([one[name] for one in runs] for name in ("guided", "plain"))
        rows.append({
            "case": f"{count} requests: guided vLLM against unguided vLLM", **_speeds(
                tokens, guided, plain
            ), **_shares(runs),
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


def _shares(runs: list[dict[str, float]]) -> Row:
    """Milliseconds of overhead a run, and the parts of it."""
    middle = {name: 1000 * statistics.median(run[name] for run in runs) for name in runs[0]}
    overhead = middle["guided"] - middle["plain"]
    rest = overhead - middle["forward"] - middle["cache"]
    return {
        "overhead, ms": overhead, "reward forward, ms": middle["forward"],
        "cache, ms": middle["cache"], "rest, ms": rest,
    }


def measure(engine: str, sizes: Sizes = SIZES) -> None:
    """Print seconds of every run for each number of requests."""
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    with tempfile.TemporaryDirectory() as name:
        _save(Path(name), sizes)
        sides = _vllm if engine == "vllm" else _transformers
        found = [
            sides(Path(name), prompts, sizes) for prompts in (
                torch.randint(2, len(tokenizer), (count, sizes.prompt)).tolist()
                for count in sizes.requests
            )
        ]
    print(json.dumps(found), flush=True)


def _save(folder: Path, sizes: Sizes) -> None:
    """``policy`` and ``reward``; neither ends a text by itself."""
    tokenizer = build_tokenizer()
    policy = sizes.backbone.causal_lm()
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    reward = RewardModel.from_base(folder / "policy", HeadConfig(kind="vocabulary"))
    with torch.no_grad():
        for parameter in reward.carrier.parameters():
            parameter.mul_(1.1)
    card = CheckpointCard(
        head=HeadConfig(kind="vocabulary"), template=Template().model_dump(mode="json")
    )
    reward.save_pretrained(folder / "reward", tokenizer, card)


def _transformers(folder: Path, prompts: list[list[int]], sizes: Sizes) -> list[float]:
    tokenizer, policy = build_tokenizer(), load_policy(folder / "policy")
    policy.generation_config.eos_token_id = tokenizer.eos_token = None
    scorer = Scorer.load(folder / "reward")
    config = DecodingConfig(
        method="farma", mode="greedy", max_new_tokens=sizes.new, batch_size=len(prompts), top_k=0
    )
    requests = [Request(id=str(i), prompt="", prompt_ids=ids) for i, ids in enumerate(prompts)]

    def answer() -> None:
        list(generate(policy, tokenizer, requests, build_method(config, scorer), config))

    answer()
    return [timed(answer) for _ in range(sizes.runs)]


def _vllm(folder: Path, prompts: list[list[int]], sizes: Sizes) -> list[dict[str, float]]:
    llm = _engine(str(folder), max(sizes.requests), sizes.prompt + sizes.new)
    from vllm import SamplingParams

    def seconds(**extra: Any) -> float:
        parameters = SamplingParams(
            temperature=0, max_tokens=sizes.new, ignore_eos=True, detokenize=False,
            extra_args=extra,
        )
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        # What one run leaves in vLLM's prefix cache would spare the next one its prompts.
        llm.reset_prefix_cache()
        return timed(lambda: llm.generate(asked, parameters, use_tqdm=False))

    seconds(), seconds(reward_weight=1.0)
    with _clocks() as clocks:
        runs = []
        parts: list[dict[str, float]] = []

        def guided() -> float:
            clocks.clear()
            took = seconds(reward_weight=1.0)
            head = clocks["asked"] - clocks["read"]
            parts.append({
                "forward": clocks["forward"] + head, "cache": clocks["read"] - clocks["forward"],
            })
            return took

        times = in_turn([guided, seconds], sizes.runs)
        for (first, second), part in zip(times, parts, strict=True):
            runs.append({"guided": first, "plain": second} | part)
    return runs


_engines: dict[str, Any] = {}


def _engine(folder: str, requests: int, longest: int) -> Any:
    """One for all numbers of requests."""
    if folder not in _engines:
        os.environ[MODELS] = f"{folder}/reward"
        _engines[folder] = start(
            f"{folder}/policy", dtype="float32", enforce_eager=True, max_model_len=longest,
            max_num_seqs=requests, distributed_executor_backend="uni",
            logits_processors=[PROCESSOR],
        )
    return _engines[folder]


@contextmanager
def _clocks() -> Iterator[dict[str, float]]:
    """Seconds spent asking the reward model, of these reading, of these in its forward passes."""
    seconds: dict[str, float] = defaultdict(float)

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds[name] += time.perf_counter() - began

        return call

    with (
        mock.patch.object(Scorer, "next_token", clocked("asked", Scorer.next_token)),
        mock.patch.object(PrefixReader, "sync", clocked("read", PrefixReader.sync)),
        mock.patch.object(PrefixReader, "_forward", clocked("forward", PrefixReader._forward)),
    ):
        yield seconds


if __name__ == "__main__":
    measure(sys.argv[1])
