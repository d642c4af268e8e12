"""Compare guides on the arithmetic task at equal KL: training targets, heads and gates; one seed.

    [SIZE=tiny] python runs/arithmetic_guidance.py OUT SEED

The scalar teacher, FaRMA with several backups, students of the teacher, an untrained head and low
temperatures are measured on the same questions (the same for all seeds, none of them trained on).
Each guide's weight is calibrated on other questions to common KL divergences from the policy.
Finished parts are kept in OUT/SEED. OUT/guidance-SEED.json holds the results, from
which summarise_guidance.py makes tables.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from guidance_models import METHODS, OUTCOME, TEACHER, distil_students, train_all
from guidance_world import Scope, World, measure

from rewardsteer.data.sources.arithmetic import build_tokenizer, is_correct
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
from rewardsteer.evaluation.statistics import auroc_interval
from rewardsteer.models.kinds import load_scorer
from rewardsteer.quiet import quiet_libraries
from rewardsteer.records import Generation

TINY = os.environ.get("SIZE") == "tiny"
# Seed of the questions, the same in all runs; policies, pairs and heads differ from run to run.
QUESTIONS = 1_000_003


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


class ArithmeticWorld(World):
    """The demo's flawed policy, whose answers a checker labels."""

    teacher, scout, methods = TEACHER, "distilled rank 4", METHODS
    candidates, template, batch_size = 5, TEMPLATE, 250

    def __init__(self, config: DemoConfig, out: Path) -> None:
        self.config, self.out, self.tokenizer = config, out, build_tokenizer()
        self.seed, self.max_new_tokens = config.seed, longest_solution(config)
        self.scope = Scope(
            weights=(1.0, 4.0) if TINY else (0.25, 0.8, 2.5, 8.0),
            targets=(0.4,) if TINY else (0.2, 0.4), shares=(0.3,) if TINY else (0.1, 0.3, 0.5),
            tuning=config.tuning_prompts, test=config.test_prompts, compared=2,
        )
        place = out / "policy" / "model"
        if not place.exists():
            make_policy(config, self.tokenizer, place.parent, progress=False)
        self.policy = load_policy(place, device="cpu")
        folders = train_all(
            config, place, self.tokenizer, sample_pairs(self.policy, self.tokenizer, config), out,
            ("args", TEACHER, "untrained", "zeros policy_soft", OUTCOME) if TINY else (),
        )
        students, self.records = distil_students(
            config, place, folders[TEACHER], out,
            *((20, 1, (self.scout,)) if TINY else (900, 3)),
        )
        self.scorers = {
            name: load_scorer(folder, device="cpu") for name, folder in (folders | students).items()
        }
        # The judge was trained otherwise than the teacher and the heads.
        self.judge = self.scorers["args"]

    def requests(self, stream: str, count: int) -> list[Request]:
        """Questions, the same ones for every seed."""
        asked = draw_questions(count, self.config.model_copy(update={"seed": QUESTIONS}), stream)
        return [Request(id=f"{stream}/{index}", prompt=one) for index, one in enumerate(asked)]

    def judged(self, rows: Sequence[Generation]) -> tuple[Sequence[float], dict[str, float]]:
        """Whether answers are correct, and the judge's mean reward."""
        rewards = self.judge.score(
            [row.prompt for row in rows], [row.completion for row in rows], batch_size=250
        )
        right = [float(is_correct(row.prompt, row.completion)) for row in rows]
        return right, {"reward": round(float(np.mean(rewards)), 4)}

    def ranking(self) -> dict[str, Any]:
        """AUROC of each reward model on complete new solutions of the policy."""
        fresh = fresh_solutions(self)
        return {
            name: auroc_interval(
                fresh.correct, one.score(fresh.questions, fresh.solutions, batch_size=250)
            ).figures("auroc")
            for name, one in self.scorers.items()
        }


def fresh_solutions(world: ArithmeticWorld) -> Samples:
    """New solutions of the policy, one per question."""
    config = world.config
    return sample(
        world.policy, world.tokenizer, draw_questions(config.fresh, config, "fresh"), config,
        samples=1, stream="fresh",
    )


def main() -> None:
    out, seed = Path(sys.argv[1]), int(sys.argv[2])
    quiet_libraries()
    measure(lambda: ArithmeticWorld(settings(seed), out / str(seed)), out, seed)


if __name__ == "__main__":
    main()
