"""goal_filter on real word problems (MAWPS): the vote, and the tokens that are not generated.

    python runs/goal_filter_mawps.py OUT DATA SEED…     DATA: tora_mawps_test.jsonl.gz

A policy is trained from scratch on the training questions with other numbers in them, and solves
with one or two steps, as "75-19=56;56/8=7". The goal-conditioned reward model learns from its own
graded solutions. Questions whose text, but for the numbers, is in training are tested on none.
Writes OUT/SEED/figures.json and OUT/table.md.
"""

import argparse
import gzip
import itertools
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goal_filter import World, run
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rewardsteer.data.answers import extract_answer, same_answer
from rewardsteer.data.tokenize import encode_completion
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.engines.hf import load_policy
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.goal import goal_of
from rewardsteer.demo.reward_models import plans, train_reward_model
from rewardsteer.demo.world import POLICY_TEMPLATE, TEMPLATE, Samples, make_pairs, optimiser
from rewardsteer.training.config import LogConfig
from rewardsteer.training.policy import ArchitectureConfig, PolicyConfig, train_policy

SAMPLES, LONGEST, STEPS = 16, 26, 1400
_OPERATIONS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "/": lambda a, b: a // b if b and a % b == 0 else -1,
}


@dataclass(frozen=True)
class Problem:
    """A question with # for its numbers, these, and how to solve it: places of numbers, signs."""

    text: str
    numbers: tuple[int, ...]
    places: tuple[int, ...]
    signs: tuple[str, ...]

    def question(self, numbers: Sequence[int]) -> str:
        left = iter(numbers)
        return re.sub("#", lambda _: str(next(left)), self.text) + "\n"

    def steps(self, numbers: Sequence[int]) -> list[str] | None:
        """The worked solution; None where a step gives no whole number of at most three digits."""
        value, steps = numbers[self.places[0]], []
        for place, sign in zip(self.places[1:], self.signs, strict=True):
            found = _OPERATIONS[sign](value, numbers[place])
            if not 0 <= found < 1000:
                return None
            steps.append(f"{value}{sign}{numbers[place]}={found}")
            value = found
        return steps

    def other_numbers(self, rng: random.Random) -> tuple[int, ...]:
        """Other numbers with which the question can be solved."""
        for _ in range(200):
            most = 20 if set("*/") & set(self.signs) else 99
            drawn = [rng.randint(2, most) for _ in self.numbers]
            if self.signs[0] == "/":
                drawn[self.places[0]] *= drawn[self.places[1]]
            if self.steps(drawn):
                return tuple(drawn)
        return self.numbers


def read_problems(place: Path) -> list[Problem]:
    """Questions with two or three whole numbers that one or two operations solve."""
    problems = {}
    with gzip.open(place, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        text = re.sub(r"(\d),(\d{3})", r"\1\2", row["input"])
        numbers = [float(found) for found in re.findall(r"\d+(?:\.\d+)?", text)]
        if not 2 <= len(numbers) <= 3 or any(one % 1 for one in numbers) or "#" in text:
            continue
        whole = tuple(int(one) for one in numbers)
        masked = re.sub(r"\d+(?:\.\d+)?", "#", text)
        orders = [
            places for count in (2, 3)
            for places in itertools.permutations(range(len(whole)), count)
        ]
        for places in orders:
            for signs in itertools.product(_OPERATIONS, repeat=len(places) - 1):
                problem = Problem(masked, whole, places, signs)
                steps = problem.steps(whole)
                if steps and float(steps[-1].rpartition("=")[2]) == row["target"]:
                    problems.setdefault(masked, problem)
    return list(problems.values())


def make_tokenizer(texts: Sequence[str]) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<eos>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def train(
    problems: Sequence[Problem], tokenizer: Any, out: Path, seed: int
) -> Path:
    rng, rows = random.Random(seed), []
    for index in range(STEPS * 64):
        problem = rng.choice(problems)
        numbers = problem.other_numbers(rng)
        steps = problem.steps(numbers)
        assert steps is not None
        prompt_ids, label_ids = encode_completion(
            problem.question(numbers), ";".join(steps), POLICY_TEMPLATE, tokenizer
        )
        rows.append({"id": str(index), "prompt_ids": prompt_ids, "label_ids": label_ids})
    settings = PolicyConfig(
        architecture=ArchitectureConfig(model_type="llama", options={
            "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256,
        }),
        optimiser=optimiser(2e-3), log=LogConfig(log_steps=100, progress=False, echo=True),
        seed=seed,
    )
    return train_policy(settings, tokenizer, rows, out, overwrite=True)


def graded(
    policy: Any, tokenizer: Any, problems: Sequence[Problem], base: DecodingConfig, seed: int
) -> Samples:
    """Eight solutions of every question with other numbers in it, right or wrong."""
    rng, asked, expected = random.Random(seed + 1000), [], []
    for problem in problems:
        numbers = problem.other_numbers(rng)
        asked.append(problem.question(numbers))
        expected.append((problem.steps(numbers) or [""])[-1].rpartition("=")[2])
    requests = [
        Request(id=f"{i}/{k}", prompt=one) for i, one in enumerate(asked) for k in range(8)
    ]
    plain = base.model_copy(update={"method": "none"})
    drawn = generate(
        policy, tokenizer, requests, build_method(plain), plain, template=TEMPLATE
    )
    samples = Samples([], [], [])
    for number, one in enumerate(drawn):
        samples.questions.append(asked[number // 8])
        samples.solutions.append(one.completion)
        samples.correct.append(
            same_answer(extract_answer(one.completion), expected[number // 8])
        )
    return samples


def build(problems: list[Problem], out: Path, seed: int, count: int) -> World:
    print(f"{len(problems)} questions", flush=True)
    random.Random(seed).shuffle(problems)
    held, known = problems[: 2 * count], problems[2 * count :]
    tokenizer = make_tokenizer([one.question(one.numbers) for one in known])
    place = train(known, tokenizer, out / "policy", seed)
    policy = load_policy(place)
    base = DecodingConfig(
        top_k=0, max_new_tokens=LONGEST, batch_size=128, seed=seed, drop_start=2
    )
    samples = graded(policy, tokenizer, known, base, seed)
    print(f"on training questions with other numbers: {samples.accuracy:.3f} right", flush=True)
    config = DemoConfig(seed=seed, reward_steps=300)
    pairs = make_pairs(samples, tokenizer, config)
    plan = next(one for one in plans(config) if one.name == "goal")
    scorer = train_reward_model(
        plan, place, tokenizer, pairs, config, out / "goal", progress=False, announce=print
    )
    expected = {
        one.question(one.numbers): (one.steps(one.numbers) or [""])[-1].rpartition("=")[2]
        for one in held
    }
    requests = [Request(id=str(i), prompt=one) for i, one in enumerate(expected)]
    return World(
        policy, tokenizer, scorer, goal_of(scorer, pairs), TEMPLATE, base,
        lambda one: same_answer(extract_answer(one.completion), expected[one.prompt]),
        validation=requests[:count], test=requests[count:],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    run(arguments.out, arguments.seeds, SAMPLES, lambda out, seed: build(
        read_problems(arguments.data), out, seed, arguments.questions
    ))


if __name__ == "__main__":
    main()
