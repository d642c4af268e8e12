"""The demo's policy, its sampled solutions, and labelled pairs of them."""

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardsteer.data.sets import Row, encode_comparisons, partial_row
from rewardsteer.data.sources.arithmetic import FlawedSolver, draw_question, is_correct
from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import encode_rows
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate, require_answers
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.config import DemoConfig
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison, Generation
from rewardsteer.training.policy import train_policy
from rewardsteer.training.policy_config import ArchitectureConfig, PolicyConfig
from rewardsteer.training.shared_config import LogConfig, OptimiserConfig

# The policy ends its solutions with end-of-text. Reward models score a solution at its last digit,
# as published data scores a response at its last word, so that what they learn there transfers to
# the same kind of token in the middle of a solution.
POLICY_TEMPLATE = Template(kind="text")
TEMPLATE = Template(kind="text", append_eos=False)
BATCH = 64


@dataclass
class Samples:
    """Solutions of one or more questions and their correctness."""

    questions: list[str]
    solutions: list[str]
    correct: list[bool]

    @property
    def accuracy(self) -> float:
        """Share of correct solutions."""
        return sum(self.correct) / len(self.correct)


def longest_solution(config: DemoConfig) -> int:
    """Most tokens of a solution: five and a separator (or end-of-text) per step, and a few more."""
    return 6 * config.task.max_operations + 2


def draw_questions(count: int, config: DemoConfig, stream: str) -> list[str]:
    """Questions from a named random stream; different streams are independent."""
    rng = random.Random(f"{config.seed}/{stream}")
    return [draw_question(rng, config.task) for _ in range(count)]


def known_questions(config: DemoConfig) -> set[str]:
    """Questions that reward models are trained on or that weights and thresholds are chosen on.

    The default task has 11,000 questions, so other streams draw many of these again.
    """
    streams = {
        "pairs": config.questions, "tuning": config.tuning_prompts, "votes": config.vote_questions,
    }
    return {
        question for stream, count in streams.items()
        for question in draw_questions(count, config, stream)
    }


def make_policy(config: DemoConfig, tokenizer: Any, out: Path, *, progress: bool) -> Path:
    """Train the policy on the flawed solver's text and return its folder."""
    solver, rng = FlawedSolver(config.task), random.Random(f"{config.seed}/policy")
    questions, solutions = [], []
    for _ in range(config.policy_steps * BATCH):
        questions.append(draw_question(rng, config.task))
        solutions.append(solver.solve(questions[-1], rng))
    coded = encode_rows(questions, solutions, POLICY_TEMPLATE, tokenizer)
    rows = [
        {"id": str(index), "prompt_ids": one.prompt_ids, "label_ids": one.response_ids}
        for index, one in enumerate(coded)
    ]
    settings = PolicyConfig(
        architecture=ArchitectureConfig(
            model_type="llama",
            options={
                "hidden_size": config.hidden_size,
                "intermediate_size": 4 * config.hidden_size,
                "num_hidden_layers": config.layers,
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.heads,
                "max_position_embeddings": 128,
            },
        ),
        optimiser=optimiser(3e-3),
        log=LogConfig(logging_steps=25, progress=progress, print_logs=False),
        seed=config.seed,
    )
    return train_policy(settings, tokenizer, rows, out, overwrite=True)


def optimiser(
    learning_rate: float, *, max_steps: int = -1, batch_size: int = BATCH
) -> OptimiserConfig:
    """Settings of the optimiser, common to all of the demo's models."""
    return OptimiserConfig(
        learning_rate=learning_rate, per_device_train_batch_size=batch_size,
        lr_scheduler_type="cosine", warmup_steps=20,
        weight_decay=0.01, betas=(0.9, 0.95), max_steps=max_steps,
    )


def sample(
    policy: Any, tokenizer: Any, questions: list[str], config: DemoConfig, *, samples: int,
    stream: str,
) -> Samples:
    """Solutions at temperature 1, ``samples`` for every question, question by question."""
    settings = DecodingConfig(
        method="none", top_k=0, max_new_tokens=longest_solution(config), batch_size=250,
        seed=config.seed,
    )
    requests = [
        Request(id=f"{stream}/{index}/{number}", prompt=question)
        for index, question in enumerate(questions)
        for number in range(samples)
    ]
    # Sorted by length, so that batches have little padding.
    requests.sort(key=lambda request: len(request.prompt))
    drawn: dict[str, Generation] = {
        generation.id: generation
        for generation in require_answers(generate(
            policy, tokenizer, requests, build_method(settings), settings, template=TEMPLATE
        ))
    }
    result = Samples([], [], [])
    for index, question in enumerate(questions):
        for number in range(samples):
            solution = drawn[f"{stream}/{index}/{number}"].completion
            result.questions.append(question)
            result.solutions.append(solution)
            result.correct.append(is_correct(question, solution))
    return result


def sample_pairs(policy: Any, tokenizer: Any, config: DemoConfig) -> Samples:
    """Solutions of the questions that pairs are made of, each question once."""
    questions = list(dict.fromkeys(draw_questions(config.questions, config, "pairs")))
    return sample(policy, tokenizer, questions, config, samples=config.samples, stream="pairs")


def make_pairs(samples: Samples, tokenizer: Any, config: DemoConfig) -> list[Row]:
    """Correct against incorrect solutions of the same question, as rows for training.

    Raises:
        DataError: no question has both a correct and an incorrect solution.
    """
    rng = random.Random(f"{config.seed}/pairs")
    by_question: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for question, solution, correct in zip(
        samples.questions, samples.solutions, samples.correct, strict=True
    ):
        by_question[question][0 if correct else 1].add(solution)
    comparisons: list[Comparison] = []
    for question, (good, bad) in by_question.items():
        combinations = [(r, w) for r in sorted(good) for w in sorted(bad)]
        count = min(config.pairs_per_question, len(combinations))
        for chosen, rejected in rng.sample(combinations, count):
            comparisons.append(Comparison(
                id=str(len(comparisons)), prompt=question, chosen=chosen, rejected=rejected
            ))
    if not comparisons:
        raise DataError(
            "No question has both a correct and an incorrect solution; raise demo questions."
        )
    return [
        partial_row(pair, start=0, count=None, seed=config.seed)
        for pair in encode_comparisons(comparisons, TEMPLATE, tokenizer)
    ]
