"""Guides at equal KL on the arithmetic task: targets, heads, gates; one seed a call.

    [SIZE=tiny] python runs/arithmetic_guidance.py OUT SEED

The scalar teacher, FaRMA with several backups, students of the teacher, an untrained head and low
temperatures are measured on the same questions (the same for all seeds, none of them trained on).
Each guide's weight is calibrated on other questions to common KL divergences from the policy. Parts
that are done are kept in OUT/SEED; OUT/guidance-SEED.json has the figures, and
summarise_guidance.py makes tables of them.
"""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from guidance_laws import Way, distances, read_ways, threshold_for
from guidance_models import METHODS, OUTCOME, TEACHER, distil_all, records_of, train_all

from rewardsteer.data.sources.arithmetic import build_tokenizer, is_correct
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate, require_answers
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.world import (
    TEMPLATE,
    Samples,
    draw_questions,
    longest_solution,
    make_policy,
    sample,
    sample_pairs,
)
from rewardsteer.evaluation.guide import evaluate_guide
from rewardsteer.evaluation.likelihood import prompts_as_read
from rewardsteer.evaluation.statistics import auroc_interval
from rewardsteer.models.kinds import load_scorer
from rewardsteer.outputs import read_json, write_json
from rewardsteer.quiet import quiet_libraries

TINY = os.environ.get("SIZE") == "tiny"
# Questions are those of one world; policies, pairs and heads differ from seed to seed.
QUESTIONS = 1_000_003
WEIGHTS = (1.0, 4.0) if TINY else (0.25, 0.8, 2.5, 8.0)
TARGETS = (0.4,) if TINY else (0.2, 0.4)
SHARES = (0.3,) if TINY else (0.1, 0.3, 0.5)
SCOUT = "distilled rank 4"
CANDIDATES = 5


def settings(seed: int) -> DemoConfig:
    """The demo's task and models with fewer pairs and updates, so that a seed takes minutes."""
    if not TINY:
        return DemoConfig(
            seed=seed, questions=2500, samples=6, reward_steps=300, constraint_steps=40, fresh=1000,
            tuning_prompts=80, test_prompts=300,
        )
    return DemoConfig(
        seed=seed, hidden_size=24, layers=1, heads=2, policy_steps=60, questions=120, samples=6,
        reward_steps=4, constraint_steps=1, fresh=24, tuning_prompts=6, test_prompts=12,
    )


class World:
    """A policy with its guides, and what is asked of them."""

    def __init__(self, config: DemoConfig, out: Path) -> None:
        self.config, self.out, self.tokenizer = config, out, build_tokenizer()
        place = out / "policy" / "model"
        if not place.exists():
            make_policy(config, self.tokenizer, place.parent, progress=False)
        self.policy = load_policy(place, device="cpu")
        folders = train_all(
            config, place, self.tokenizer, sample_pairs(self.policy, self.tokenizer, config), out,
            ("args", TEACHER, "untrained", "zeros policy_soft", OUTCOME) if TINY else (),
        )
        students = distil_all(
            config, place, folders[TEACHER], out, *((20, 1, (SCOUT,)) if TINY else (900, 3))
        )
        self.records = records_of(students)
        self.scorers: dict[str, Any] = {
            name: load_scorer(folder, device="cpu") for name, folder in (folders | students).items()
        }
        # The judge's training is neither the teacher's nor a head's; the truth is known besides.
        self.judge = self.scorers["args"]

    def requests(self, stream: str, count: int) -> list[Request]:
        """Questions, the same ones for every seed."""
        asked = draw_questions(count, self.config.model_copy(update={"seed": QUESTIONS}), stream)
        return [Request(id=f"{stream}/{index}", prompt=one) for index, one in enumerate(asked)]

    def decoding(self, guide: str | None, **options: Any) -> DecodingConfig:
        """Settings; all guides draw from the policy's same few best tokens."""
        method = "none" if guide is None else METHODS.get(guide, "farma")
        if method in ("farma", "q_sharp"):
            options["max_kl"] = 1e3
        return DecodingConfig(
            method=method, top_k=CANDIDATES, max_new_tokens=longest_solution(self.config),
            batch_size=250, seed=self.config.seed, **options,
        )

    def run(
        self, stream: str, count: int, guide: str | None, scout: str | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], list[Any]]:
        """Answer questions; figures and answers."""
        config, asked = self.decoding(guide, **options), self.requests(stream, count)
        scorer, second = (None if one is None else self.scorers[one] for one in (guide, scout))
        method = build_method(config, scorer, scout=second)
        if scout is not None:
            # One that looks at the same few tokens as the guides.
            method.scout = build_method(self.decoding(scout, weight=config.weight), second)
        began = time.perf_counter()
        rows = list(require_answers(generate(
            self.policy, self.tokenizer, asked, method, config, template=TEMPLATE
        )))
        seconds = time.perf_counter() - began
        ways = self.read(stream, rows, guide, scout)
        if guide is None:
            warmth = 1 / config.temperature - 1 if config.mode == "sample" else 0.0
            config = config.model_copy(update={"weight": warmth})
        far = distances(ways, config, method.pull)
        acted = sum(row.cost.guided_steps for row in rows)
        again, tokens = sum(one.guided for one in far), sum(row.cost.new_tokens for row in rows)
        rewards = self.judge.score(
            [row.prompt for row in rows], [row.completion for row in rows], batch_size=250
        )
        right = [is_correct(row.prompt, row.completion) for row in rows]
        return {
            "kl": round(float(np.mean([one.kl for one in far])), 4),
            "accuracy": sum(right) / len(right),
            "reward": round(float(np.mean(rewards)), 4),
            "guided": round(acted / tokens, 4),
            # As the gate decides when the answers are read again, on which `kl` rests.
            "guided_again": round(again / tokens, 4),
            "passes": round(sum(row.cost.rm_forwards for row in rows) / tokens, 4),
            "calls": round(sum(row.cost.rm_calls for row in rows) / tokens, 4),
            "milliseconds": round(1e3 * seconds / tokens, 4),
            "right": "".join(str(int(one)) for one in right),
        }, rows

    def read(
        self, stream: str, rows: list[Any], guide: str | None, scout: str | None = None
    ) -> list[Way]:
        """What policy and guides say along the answers to a stream's questions."""
        prompts = prompts_as_read(
            self.requests(stream, len(rows)), self.tokenizer, None, TEMPLATE
        )
        scorer, second = (None if one is None else self.scorers[one] for one in (guide, scout))
        return read_ways(self.policy, scorer, prompts, rows, CANDIDATES, second)


def fresh_solutions(world: World) -> Samples:
    """New solutions of the policy, one to a question."""
    config = world.config
    return sample(
        world.policy, world.tokenizer, draw_questions(config.fresh, config, "fresh"), config,
        samples=1, stream="fresh",
    )


def ranking(world: World) -> dict[str, Any]:
    """AUROC of whole new solutions of the policy."""
    fresh = fresh_solutions(world)
    return {
        name: auroc_interval(
            fresh.correct, one.score(fresh.questions, fresh.solutions, batch_size=250)
        ).figures("auroc")
        for name, one in world.scorers.items()
    }


def calibration(world: World, names: Iterable[str]) -> dict[str, Any]:
    """KL of guides by weight on tuning questions, and the weights that reach the targets."""
    found = {}
    for name in names:
        reached = [
            max(world.run("tuning", world.config.tuning_prompts, name, weight=one)[0]["kl"], 1e-4)
            for one in WEIGHTS
        ]
        rising = np.maximum.accumulate(reached) + 1e-9 * np.arange(len(WEIGHTS))
        weights = [
            float(np.exp(np.interp(np.log(one), np.log(rising), np.log(WEIGHTS))))
            for one in TARGETS
        ]
        found[name] = {"kl": reached, "weights": weights}
        print(name, found[name], flush=True)
    return found


def against_teacher(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """`evaluate guide` at the teacher's weight of the last target."""
    weight = weights[TEACHER]["weights"][-1]
    found = {}
    for name, one in world.scorers.items():
        figures = evaluate_guide(
            one, world.records, weight=weight, seed=world.config.seed, batch_size=200
        )
        found[name] = {key: row for key, row in figures.items() if np.isfinite(row["value"])}
    return found


def guidance(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """Every guide at every target, with plain, cold and greedy sampling."""
    count = world.config.test_prompts
    found = {
        "none": world.run("test", count, None)[0],
        "none T=0.5": world.run("test", count, None, temperature=0.5)[0],
        "none greedy": world.run("test", count, None, mode="greedy")[0],
    }
    del found["none greedy"]["kl"]
    return found | at_targets(world, weights)


def at_targets(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """Guides, as they were calibrated, at every target."""
    found = {}
    for name, own in weights.items():
        for target, weight in zip(TARGETS, own["weights"], strict=True):
            row = world.run("test", world.config.test_prompts, name, weight=weight)[0]
            found[f"{name} @ {target:g}"] = row | {"weight": round(weight, 4)}
            print(name, target, row["kl"], row["accuracy"], row["reward"], flush=True)
    return found


def gates(world: World, weights: dict[str, Any]) -> dict[str, Any]:
    """The teacher behind gates, at its weight of the last target. Thresholds are those that let a
    share of the tokens through on tuning questions."""
    count, found = world.config.test_prompts, {}
    weight = weights[TEACHER]["weights"][-1]
    tuned = world.run("tuning", world.config.tuning_prompts, TEACHER, weight=weight)[1]
    both = world.read("tuning", tuned, TEACHER, SCOUT)
    alone = [way._replace(scout=None) for way in both]
    for share in SHARES:
        rows: dict[str, dict[str, Any]] = {
            "random": {"gate": "random", "gate_share": share},
            "first": {"gate": "first", "gate_share": share},
            "entropy, own share": {"gate": "entropy", "gate_share": share},
        }
        for kind in ("entropy", "top1", "kl", "two-tier"):
            two = kind == "two-tier"
            gate = "kl" if two else kind
            looked = world.decoding(TEACHER, weight=weight, gate=gate, gate_threshold=0.0)
            rows[kind] = {
                "gate": gate, "gate_threshold": threshold_for(both if two else alone, looked, share)
            } | ({"scout": SCOUT} if two else {})
        for kind, options in rows.items():
            row = world.run("test", count, TEACHER, weight=weight, **options)[0]
            found[f"{kind} {share:g}"] = row | {"threshold": options.get("gate_threshold")}
            print(kind, share, row["guided"], row["accuracy"], flush=True)
    return found


def main() -> None:
    out, seed = Path(sys.argv[1]), int(sys.argv[2])
    quiet_libraries()
    place = out / f"guidance-{seed}.json"
    if place.exists():
        return
    began, world = time.time(), World(settings(seed), out / str(seed))
    print("trained", round(time.time() - began), flush=True)
    done: dict[str, Any] = {"seed": seed, "teacher": TEACHER, "targets": list(TARGETS)}
    parts = {
        "ranking": lambda: ranking(world),
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


if __name__ == "__main__":
    main()
