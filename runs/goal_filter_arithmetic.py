"""Measure goal_filter on the arithmetic task: accuracy of the vote, and tokens saved.

    python runs/goal_filter_arithmetic.py OUT SEED…

Each seed has its own flawed policy, pairs, goal-conditioned reward model and questions. Writes
OUT/SEED/figures.json and OUT/table.md.
"""

import argparse
from pathlib import Path

from goal_filter import World, run

from rewardsteer.data.sources.arithmetic import build_tokenizer, is_correct
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.goal import goal_of
from rewardsteer.demo.reward_models import plans, train_reward_model
from rewardsteer.demo.world import (
    TEMPLATE,
    draw_questions,
    longest_solution,
    make_pairs,
    make_policy,
    sample_pairs,
)
from rewardsteer.models.kinds import load_scorer

SAMPLES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    run(arguments.out, arguments.seeds, SAMPLES, lambda out, seed: build(
        DemoConfig(seed=seed, questions=3000), out, arguments.questions
    ))


def build(config: DemoConfig, out: Path, count: int) -> World:
    tokenizer = build_tokenizer()
    place = out / "policy" / "model"
    if not place.exists():
        make_policy(config, tokenizer, place.parent, progress=False)
    policy = load_policy(place)
    drawn = sample_pairs(policy, tokenizer, config)
    pairs = make_pairs(drawn, tokenizer, config)
    plan = next(one for one in plans(config) if one.name == "goal")
    scorer = load_scorer(train_reward_model(
        plan, place, tokenizer, pairs, config, out / "goal", progress=False, announce=print
    ))
    base = DecodingConfig(
        top_k=0, max_new_tokens=longest_solution(config), batch_size=200, seed=config.seed,
        drop_start=0,
    )
    # Different streams may draw equal questions; a question used before is not tested on.
    known = set(drawn.questions)
    fresh = [
        one for one in dict.fromkeys(draw_questions(6 * count, config, "filter"))
        if one not in known
    ]
    requests = [Request(id=str(i), prompt=one) for i, one in enumerate(fresh[: 2 * count])]
    return World(
        policy, tokenizer, scorer, goal_of(scorer, pairs), TEMPLATE, base,
        lambda one: is_correct(one.prompt, one.completion),
        validation=requests[:count], test=requests[count:],
    )


if __name__ == "__main__":
    main()
