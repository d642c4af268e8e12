"""Why a vocabulary head that guides well ranks complete responses badly, and what helps; one seed.

    python runs/arithmetic_ranking.py OUT SEED

It uses the models that arithmetic_guidance.py wrote to OUT/SEED. The AUROC on complete new
solutions is measured for FaRMA's head and for heads with the same initial weights but another
training (without the constraint, jointly with it, on pairs of prefixes). Of one trained model other
scores are measured as well: the mean and the minimum of the tokens' rewards, the best next reward
after the last token (which the constraint makes equal to the last reward), and a Bradley-Terry
probe fitted to the frozen model's states. Then each score chooses among five draws guided by FaRMA,
and the other heads guide at FaRMA's KL divergences.
OUT/ranking-SEED.json holds the results; summarise_ranking.py makes the tables.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arithmetic_guidance import ArithmeticWorld, fresh_solutions, settings
from guidance_models import trained
from guidance_world import at_targets, calibration

from rewardsteer.data.sources.arithmetic import is_correct
from rewardsteer.decoding.generate import build_method, generate, require_answers
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.reward_models import Phase, Plan
from rewardsteer.demo.world import TEMPLATE, make_pairs, sample_pairs
from rewardsteer.evaluation.statistics import auroc_interval
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.outputs import read_json, write_json
from rewardsteer.quiet import quiet_libraries
from rewardsteer.training.config import TermConfig

DRAWS = 5
GUIDE = "zeros max"
# Index of the guide's weight: the one of the highest KL target.
TARGET = -1


def plans(steps: int) -> list[Plan]:
    """Vocabulary heads with the guide's initial weights and updates, and another training."""
    zeros = HeadConfig(kind="vocabulary", init="zeros")
    pairs, constraint = TermConfig(name="bradley_terry"), TermConfig(name="max_constraint")
    return [
        Plan("zeros joint", zeros, (Phase((pairs, constraint), steps),)),
        Plan("zeros prefix pairs", zeros, (Phase((TermConfig(name="partial"),), steps),)),
    ]


@dataclass
class Reading:
    """Several scores that one guide gives a complete response.

    Attributes:
        scorer: a reward model with a vocabulary head.
        direction: ``[D]`` weights of a linear Bradley-Terry probe on the last token's state.
    """

    scorer: Any
    direction: np.ndarray

    def of(self, questions: list[str], solutions: list[str]) -> dict[str, np.ndarray]:
        """Scores ``[N]`` of responses, by the name of the score."""
        scored = self.scorer.token_scores(questions, solutions, batch_size=250)
        states = last_states(self.scorer, *self.scorer.encode(questions, solutions))
        head = self.scorer.reward_model.head
        with torch.no_grad():
            following = head.next_token(torch.from_numpy(states).float())
        return {
            "last reward": np.array([one.rewards[-1] for one in scored]),
            "mean of rewards": np.array([one.rewards.mean() for one in scored]),
            "least reward": np.array([one.rewards.min() for one in scored]),
            "best next reward": following.amax(dim=1).double().numpy(),
            "reading of its own": states @ self.direction,
        }


def last_states(scorer: Any, prompts: list[list[int]], responses: list[list[int]]) -> np.ndarray:
    """States ``[N, D]`` of the responses' last tokens."""
    found = np.empty((len(prompts), scorer.hidden_size))
    for read in scorer.read(prompts, responses, batch_size=250):
        found[read.rows] = read.last_states.double().numpy()
    return found


def fitted_direction(better: np.ndarray, worse: np.ndarray) -> np.ndarray:
    """Weights ``[D]`` of a linear Bradley-Terry model on the states of N pairs, ``[N, D]`` each;
    a small ridge keeps them finite."""
    apart = torch.from_numpy(better - worse)
    scale = apart.std(dim=0).clamp(min=1e-6)
    direction = torch.zeros(apart.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([direction], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.softplus(-(apart / scale) @ direction).mean()
        value = value + 1e-3 * direction.square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    return (direction.detach() / scale).numpy()


def reading_of(scorer: Any, rows: list[Any]) -> Reading:
    """A guide's `Reading`, with the probe fitted to the training pairs."""
    prompts = [row["prompt_ids"] for row in rows]
    better, worse = (
        last_states(scorer, prompts, [row[side] for row in rows])
        for side in ("chosen_ids", "rejected_ids")
    )
    return Reading(scorer, fitted_direction(better, worse))


def draws_of(world: ArithmeticWorld, weight: float) -> list[list[Any]]:
    """`DRAWS` guided answers to each test question."""
    asked = world.requests("test", world.config.test_prompts)
    config = world.decoding(GUIDE, weight=weight)
    method = build_method(config, world.scorers[GUIDE])
    requests = [
        Request(id=f"{one.id}/{number}", prompt=one.prompt)
        for one in asked for number in range(DRAWS)
    ]
    rows = list(require_answers(generate(
        world.policy, world.tokenizer, requests, method, config, template=TEMPLATE
    )))
    return [rows[place : place + DRAWS] for place in range(0, len(rows), DRAWS)]


def scores(
    readings: dict[str, Reading], scorers: dict[str, Any], questions: list[str],
    solutions: list[str],
) -> dict[str, np.ndarray]:
    """Scores ``[N]`` of complete solutions, by name, from every reading and reward model."""
    found = {
        f"{name}: {kind}": values
        for name, reading in readings.items()
        for kind, values in reading.of(questions, solutions).items()
    }
    return found | {
        name: one.score(questions, solutions, batch_size=250) for name, one in scorers.items()
    }


def main() -> None:
    out, seed = Path(sys.argv[1]), int(sys.argv[2])
    quiet_libraries()
    place = out / f"ranking-{seed}.json"
    if place.exists():
        return
    config = settings(seed)
    world = ArithmeticWorld(config, out / str(seed))
    samples = sample_pairs(world.policy, world.tokenizer, config)
    rows = make_pairs(samples, world.tokenizer, config)
    scorers = {
        name: world.scorers[name] for name in ("args", "pargs", "untrained", "zeros pairs alone")
    }
    place_of_policy = out / str(seed) / "policy" / "model"
    others = {
        plan.name: load_scorer(
            trained(plan, config, place_of_policy, world.tokenizer, rows, out / str(seed)),
            device="cpu",
        ) for plan in plans(config.reward_steps)
    }
    scorers |= others
    world.scorers |= others
    readings = {name: reading_of(world.scorers[name], rows) for name in ("farma", GUIDE)}
    fresh = fresh_solutions(world)
    ranked = scores(readings, scorers, fresh.questions, fresh.solutions)
    calibrated = read_json(out / str(seed) / "calibration.json")
    draws = draws_of(world, calibrated[GUIDE]["weights"][TARGET])
    flat = [row for rows in draws for row in rows]
    chosen = scores(
        readings, scorers, [row.prompt for row in flat], [row.completion for row in flat]
    )
    right = np.array([is_correct(row.prompt, row.completion) for row in flat]).reshape(-1, DRAWS)
    write_json(place, {
        "seed": seed, "guide": GUIDE, "draws": DRAWS,
        "auroc": {
            name: auroc_interval(fresh.correct, values).figures("auroc")
            for name, values in ranked.items()
        },
        "right": ["".join(str(int(one)) for one in row) for row in right],
        "chosen": {
            name: [int(one) for one in values.reshape(-1, DRAWS).argmax(axis=1)]
            for name, values in chosen.items()
        },
        "guidance": at_targets(world, calibration(world, others)),
    })


if __name__ == "__main__":
    main()
