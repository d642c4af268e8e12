"""Methods by engines: what a method costs in each engine that can run it, against the policy alone
in the same engine.

Each engine runs in a process of its own. Behind the address is vLLM's own OpenAI server.
"""

import contextlib
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.harness import CannotRun, Row, alone, in_turn, spread, timed
from benchmarks.vllm import ENVIRONMENT, Sizes, save_models
from benchmarks.vllm import SIZES as GUIDED
from benchmarks.vllm_server import VLLMServer
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engine import Engine
from rewardsteer.decoding.engines.registry import ABILITIES, ENGINES
from rewardsteer.decoding.generate import build_method, generate_by
from rewardsteer.decoding.methods import METHODS
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.kinds import load_scorer

ALONE = "none"
# Method → reward model and settings. With these nothing is dropped, which random models would do at
# random, so the time of scoring is measured.
CASES: dict[str, tuple[str | None, dict[str, Any]]] = {
    ALONE: (None, {}),
    "farma": ("vocabulary", {}),
    "args": ("scalar", {"top_k": 5}),
    "best_of_n": ("scalar", {"n": 4}),
    "speculative_rejection": ("scalar", {"n": 4, "decision_tokens": 16}),
    "cards": ("scalar", {"reward_target": -1e6, "segment_min": 8, "segment_tokens": 8}),
    "beam": ("scalar", {"beam": 2, "branches": 2, "step_tokens": 8}),
    "goal_filter": ("scalar", {"n": 4, "drop_threshold": -1.0}),
}


SIZES = replace(GUIDED, requests=(1, 8), runs=2)
SETUP = (
    f"Policy and reward models: {SIZES.backbone}, random weights, float32; prompts of "
    f"{SIZES.prompt} tokens, answers of {SIZES.new}, sampled, all requests at once; one "
    "thread per process. 5 candidates for args, 4 samples for best_of_n, speculative_rejection and "
    "goal_filter. goal_filter drops no sample here, and cards rejects no segment of 8 tokens; beam "
    "keeps 2 of 4 hypotheses every 8 tokens. Only tokens of the answers count. openai: vLLM's own "
    "server on this machine, over HTTP. An engine that cannot run a method has no row. The ratio "
    "is the speed over that of the policy alone in the same engine."
)


def run(sizes: Sizes = SIZES, engines: Sequence[str] = tuple(ENGINES.names())) -> list[Row]:
    """Tokens per second of each method in each engine."""
    if importlib.util.find_spec("vllm") is None:
        raise CannotRun("vLLM is not installed here; 'make bench TABLE=engines' installs it.")
    with mock.patch.dict(os.environ, ENVIRONMENT):
        found = {name: alone("benchmarks.engines", name) for name in engines}
    return [
        _row(f"{method}, {count} requests, {engine}", found[engine][place], method,
             count * sizes.new)
        for place, count in enumerate(sizes.requests)
        for method in CASES for engine in found if method in found[engine][place]
    ]


def _row(case: str, seconds: dict[str, list[float]], method: str, tokens: int) -> Row:
    own, plain = seconds[method], seconds[ALONE]
    return {
        "case": case, "ours": tokens / statistics.median(own),
        "other": tokens / statistics.median(plain), "unit": "tokens/s",
        **spread([other / mine for mine, other in zip(own, plain, strict=True)]),
    }


def measure(engine: str, sizes: Sizes = SIZES) -> None:
    """Print, for each number of requests, the seconds of every run by method."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, _sources(engine, Path(name), sizes) as open_engine:
        bench = Bench(Path(name), sizes, open_engine)
        able = [method for method in CASES
                if METHODS.get(method).abilities <= ABILITIES[engine] and _fits(engine, method)]
        found = [bench.seconds(able, count) for count in sizes.requests]
    print(json.dumps(found), flush=True)


def _fits(engine: str, method: str) -> bool:
    """False for ``args`` in vLLM: it has the method's abilities but scores no candidates."""
    return engine != "vllm" or method != "args"


class Bench:
    """Reward models, each loaded once, and a function that opens the engine."""

    def __init__(
        self, folder: Path, sizes: Sizes, open_engine: Callable[[str], Engine]
    ) -> None:
        self._sizes, self._open = sizes, open_engine
        self._scorers = {
            None: None, "vocabulary": load_scorer(folder / "reward"),
            "scalar": load_scorer(folder / "scalar"),
        }
        made = Provenance(kind="mean", model_fingerprint=self._scorers["scalar"].fingerprint)
        self._goal = GoalState("goal", torch.ones(1, sizes.backbone.size), made)

    def seconds(self, methods: list[str], count: int) -> dict[str, list[float]]:
        """Seconds of every run by method."""
        sides = [partial(self._answer, name, count) for name in methods]
        for side in sides:
            side()  # the first call of a size is slower
        runs = in_turn([partial(timed, side) for side in sides], self._sizes.runs)
        return {name: [run[place] for run in runs] for place, name in enumerate(methods)}

    def _answer(self, name: str, count: int) -> None:
        head, options = CASES[name]
        config = DecodingConfig(
            method=name, mode="sample", max_new_tokens=self._sizes.new, ignore_eos=True,
            batch_size=4 * count, **options,
        )
        ids = torch.randint(
            2, self._sizes.backbone.vocabulary, (count, self._sizes.prompt),
            generator=torch.Generator().manual_seed(count),
        )
        requests = [
            Request(id=str(row), prompt="", prompt_ids=one) for row, one in enumerate(ids.tolist())
        ]
        method = build_method(config, self._scorers[head], self._goal)
        answers = list(generate_by(self._open(name), requests, method, config))
        for one in answers:
            if one.error or len(one.token_ids) != self._sizes.new:
                raise RuntimeError(
                    f"{name}: {one.error or f'{len(one.token_ids)} tokens'}, expected "
                    f"{self._sizes.new} tokens"
                )


@contextlib.contextmanager
def _sources(
    engine: str, folder: Path, sizes: Sizes
) -> Iterator[Callable[[str], Engine]]:
    """A function that opens the engine for a method."""
    save_models(folder, sizes.backbone)
    tokenizer, config = build_tokenizer(), DecodingConfig(batch_size=4 * max(sizes.requests))
    kind = ENGINES.get(engine)
    if engine == "transformers":
        from rewardsteer.decoding.engines.transformers.admission import Bounds

        policy = load_policy(folder / "policy")
        yield lambda _: kind(policy, tokenizer, Bounds(config.batch_size))
    elif engine == "vllm":
        from rewardsteer.decoding.engines.vllm_settings import guided_by
        from rewardsteer.decoding.engines.vllm_start import start

        options = {
            "dtype": "float32", "enforce_eager": True, "max_model_len": sizes.prompt + sizes.new,
            "max_num_seqs": config.batch_size, "distributed_executor_backend": "uni",
        }
        plain = start(str(folder / "policy"), **options)
        guided = start(
            str(folder / "policy"), hf_overrides=guided_by([f"{folder}/reward"]), **options
        )

        def running(method: str) -> Engine:
            opened = kind.open(str(folder / "policy"), tokenizer, config)
            opened.llm = guided if method == "farma" else plain
            # With the prefix cache of one run, the next would not compute its prompts.
            opened.llm.reset_prefix_cache()
            return opened

        yield running
    else:
        with VLLMServer(
            folder / "server.log", folder / "policy", sizes.prompt + sizes.new,
            "--max-num-seqs", str(config.batch_size), "--no-enable-prefix-caching",
            "--no-enable-chunked-prefill", "--distributed-executor-backend", "uni",
        ) as server:
            address = f"{server.wait().url}/v1"
            yield lambda _: kind.open(str(folder / "policy"), tokenizer, config, url=address)


if __name__ == "__main__":
    measure(sys.argv[1])
