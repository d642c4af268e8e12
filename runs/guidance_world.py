"""Measurement of guides at equal KL: calibration, runs, gates, and resuming from finished parts.

`arithmetic_guidance.py` and `sentiment_guidance.py` each define a `World`: a policy, guides,
prompts, and a judge.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from guidance_laws import Way, distances, read_ways, threshold_for

from rewardsteer.data.template import Template
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate, require_answers
from rewardsteer.decoding.prompts import prompts_as_read
from rewardsteer.decoding.requests import Request
from rewardsteer.evaluation.guide import evaluate_guide
from rewardsteer.outputs import read_json, write_json
from rewardsteer.records import Generation

READ_TOGETHER = 50


@dataclass(frozen=True)
class Scope:
    """What is measured.

    Attributes:
        weights: guidance weights of the calibration, rising.
        targets: KL divergences from the policy (nats per response) at which the teacher is
            measured, rising.
        compared: guides other than the teacher are measured at so many of the highest targets.
        shares: shares of the steps at which gates open.
        gates: kinds of gate.
        tuning, test: numbers of prompts.
    """

    weights: tuple[float, ...]
    targets: tuple[float, ...]
    shares: tuple[float, ...]
    tuning: int
    test: int
    compared: int
    gates: tuple[str, ...] = ("random", "first", "entropy, own share", "entropy", "top1", "kl",
                              "two-tier")


class World(ABC):
    """A policy with its guides, prompts and judge.

    Attributes:
        scope: what is measured.
        teacher: the guide that others are compared with.
        scout: the guide whose rewards decide for the gate ``two-tier``.
        methods: guide → decoding method; guides not named are vocabulary heads for farma.
        candidates: guidance is over this many of the policy's most probable tokens.
        template, max_new_tokens, batch_size, seed: settings of generation.
        policy, tokenizer: the model that answers.
        scorers: the guides' reward models.
        records: the folder of distillation records on which `against_teacher` compares.
    """

    teacher: ClassVar[str]
    scout: ClassVar[str]
    methods: ClassVar[Mapping[str, str]]
    candidates: ClassVar[int]
    template: ClassVar[Template]
    scope: Scope
    max_new_tokens: int
    batch_size: int
    seed: int
    policy: Any
    tokenizer: Any
    scorers: dict[str, Any]
    records: Path

    @abstractmethod
    def requests(self, stream: str, count: int) -> list[Request]:
        """Prompts of a stream (``tuning`` or ``test``), the same ones for every seed."""

    @abstractmethod
    def judged(self, rows: Sequence[Generation]) -> tuple[Sequence[float], dict[str, float]]:
        """The value of each answer, 0 to 1 (best), and further means over all answers."""

    @abstractmethod
    def ranking(self) -> dict[str, Any]:
        """AUROC of each guide's reward model on complete texts that it was not trained on."""

    def decoding(self, guide: str | None, **options: Any) -> DecodingConfig:
        """Decoding settings; all guides choose among the same number of best policy tokens."""
        method = "none" if guide is None else self.methods.get(guide, "farma")
        if method in ("farma", "q_sharp"):
            options["max_kl"] = 1e3
        return DecodingConfig(
            method=method, top_k=self.candidates, max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size, seed=self.seed, **options,
        )

    def run(
        self, stream: str, guide: str | None, scout: str | None = None, **options: Any,
    ) -> tuple[dict[str, Any], list[Any]]:
        """Answer the prompts of a stream; returns figures and answers."""
        count = self.scope.tuning if stream == "tuning" else self.scope.test
        config, asked = self.decoding(guide, **options), self.requests(stream, count)
        scorer, second = (None if one is None else self.scorers[one] for one in (guide, scout))
        method = build_method(config, scorer, scout=second)
        if scout is not None:
            # A scout that scores as many candidates as the guides.
            method.scout = build_method(self.decoding(scout, weight=config.weight), second)
        began = time.perf_counter()
        rows = list(require_answers(generate(
            self.policy, self.tokenizer, asked, method, config, template=self.template
        )))
        seconds = time.perf_counter() - began
        ways = self.read(stream, rows, guide, scout)
        if guide is None:
            warmth = 1 / config.temperature - 1 if config.mode == "sample" else 0.0
            config = config.model_copy(update={"weight": warmth})
        far = distances(ways, config, method.pull)
        acted = sum(row.cost.guided_steps for row in rows)
        again, tokens = sum(one.guided for one in far), sum(row.cost.new_tokens for row in rows)
        right, figures = self.judged(rows)
        return {
            "kl": round(float(np.mean([one.kl for one in far])), 4),
            "accuracy": float(np.mean(right)),
            **figures,
            "guided": round(acted / tokens, 4),
            # By the gate's decisions in the passes that compute `kl`.
            "guided_again": round(again / tokens, 4),
            "passes": round(sum(row.cost.rm_forwards for row in rows) / tokens, 4),
            "calls": round(sum(row.cost.rm_calls for row in rows) / tokens, 4),
            "milliseconds": round(1e3 * seconds / tokens, 4),
            "right": written(right),
        }, rows

    def read(
        self, stream: str, rows: list[Any], guide: str | None, scout: str | None = None
    ) -> list[Way]:
        """Policy logits and rewards along answers to a stream's prompts; see `read_ways`."""
        prompts = prompts_as_read(
            self.requests(stream, len(rows)), self.tokenizer, None, self.template
        )
        scorer, second = (None if one is None else self.scorers[one] for one in (guide, scout))
        return [
            way for begin in range(0, len(rows), READ_TOGETHER) for way in read_ways(
                self.policy, scorer, prompts, rows[begin : begin + READ_TOGETHER], self.candidates,
                second,
            )
        ]


def written(right: Sequence[float]) -> str | list[float]:
    """A short form for JSON: a string of digits where all values are 0 or 1."""
    if all(one in (0, 1) for one in right):
        return "".join(str(int(one)) for one in right)
    return [round(float(one), 4) for one in right]


def calibration(world: World, names: Iterable[str]) -> dict[str, Any]:
    """KL of each guide by weight on tuning prompts, and its weights for the KL targets."""
    found, scope = {}, world.scope
    for name in names:
        reached = [
            max(world.run("tuning", name, weight=one)[0]["kl"], 1e-4) for one in scope.weights
        ]
        rising = np.maximum.accumulate(reached) + 1e-9 * np.arange(len(scope.weights))
        weights = [
            float(np.exp(np.interp(np.log(one), np.log(rising), np.log(scope.weights))))
            for one in scope.targets
        ]
        found[name] = {"kl": reached, "weights": weights}
        print(name, found[name], flush=True)
    return found


def against_teacher(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """Figures of ``evaluate guide``, at the teacher's weight for the highest target."""
    weight = weights[world.teacher]["weights"][-1]
    found = {}
    for name, one in world.scorers.items():
        figures = evaluate_guide(one, world.records, weight=weight, seed=world.seed, batch_size=200)
        found[name] = {key: row for key, row in figures.items() if np.isfinite(row["value"])}
    return found


def guidance(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """Every guide at its targets, and the policy alone: sampled, at a low temperature, greedy."""
    found = {
        "none": world.run("test", None)[0],
        "none T=0.5": world.run("test", None, temperature=0.5)[0],
        "none greedy": world.run("test", None, mode="greedy")[0],
    }
    del found["none greedy"]["kl"]
    return found | at_targets(world, weights)


def at_targets(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """Figures of calibrated guides at their targets."""
    found = {}
    for name, own in weights.items():
        begin = 0 if name == world.teacher else -world.scope.compared
        rows = list(zip(world.scope.targets, own["weights"], strict=True))[begin:]
        for target, weight in rows:
            row = world.run("test", name, weight=weight)[0]
            found[f"{name} @ {target:g}"] = row | {"weight": round(weight, 4)}
            print(name, target, row["kl"], row["accuracy"], flush=True)
    return found


def gates(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """The teacher with gates, at its weight for the highest target. A threshold is the one with
    which the gate opens at a given share of the tokens on tuning prompts."""
    found, teacher, scout = {}, world.teacher, world.scout
    weight = weights[teacher]["weights"][-1]
    tuned = world.run("tuning", teacher, weight=weight)[1]
    both = world.read("tuning", tuned, teacher, scout)
    alone = [way._replace(scout=None) for way in both]
    for share in world.scope.shares:
        rows: dict[str, dict[str, Any]] = {
            "random": {"gate": "random", "gate_share": share},
            "first": {"gate": "first", "gate_share": share},
            "entropy, own share": {"gate": "entropy", "gate_share": share},
        }
        for kind in ("entropy", "top1", "kl", "two-tier"):
            two = kind == "two-tier"
            gate = "kl" if two else kind
            looked = world.decoding(teacher, weight=weight, gate=gate, gate_threshold=0.0)
            rows[kind] = {
                "gate": gate, "gate_threshold": threshold_for(both if two else alone, looked, share)
            } | ({"scout": scout} if two else {})
        for kind in world.scope.gates:
            row = world.run("test", teacher, weight=weight, **rows[kind])[0]
            found[f"{kind} {share:g}"] = row | {"threshold": rows[kind].get("gate_threshold")}
            print(kind, share, row["guided"], row["accuracy"], flush=True)
    return found


def measure(build: Callable[[], World], out: Path, seed: int) -> None:
    """Measure the parts that are missing in OUT/SEED; write OUT/guidance-SEED.json."""
    place = out / f"guidance-{seed}.json"
    if place.exists():
        return
    began, world = time.time(), build()
    print("trained", round(time.time() - began), flush=True)
    done: dict[str, Any] = {
        "seed": seed, "teacher": world.teacher, "targets": list(world.scope.targets)
    }
    parts = {
        "ranking": world.ranking,
        "calibration": lambda: calibration(world, world.scorers),
        "guide": lambda: against_teacher(world, done["calibration"]),
        "guidance": lambda: guidance(world, done["calibration"]),
        "gates": lambda: gates(world, done["calibration"]),
    }
    for name, part in parts.items():
        kept = out / str(seed) / f"{name}.json"
        if not kept.exists():
            write_json(kept, part())
        done[name] = read_json(kept)
        print(name, round(time.time() - began), "s", flush=True)
    write_json(place, done | {"seconds": round(time.time() - began)})
