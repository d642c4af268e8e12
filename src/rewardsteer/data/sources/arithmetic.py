"""A generated task without download: left-to-right arithmetic modulo 10, with checkable steps.

``7+8+3=`` is answered by ``7+8=5;5+3=8``. A `FlawedSolver` gets a fixed set of facts wrong more
often than not, and continues from the wrong value. A policy trained on such text errs
*systematically*: lowering its temperature makes these errors more frequent, so a method that only
sharpens the policy gains nothing here. A reward model adds the information which facts are wrong.
"""

import random
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from rewardsteer.configuration import Config, Count, Seed, load_config
from rewardsteer.errors import ConfigError
from rewardsteer.records import Comparison

OPERATORS = "+-*"
CHARACTERS = "0123456789" + OPERATORS + "=;"

_Fact = tuple[int, str, int]


class ArithmeticConfig(Config):
    """The task and the flaw.

    Attributes:
        operators: which of ``+-*`` occur; with ``*`` an incorrect step may still lead to the
            correct answer.
        min_operations: fewest operators in a question.
        max_operations: most operators in a question.
        flawed_facts: number of facts ``a∘b`` (of 100 per operator) that the solver often gets
            wrong.
        wrong_probability: how often it does; above one half, the wrong answer is the likeliest.
        seed: draws the flawed facts and their wrong answers.
    """

    operators: str = "+"
    min_operations: int = Field(2, ge=1)
    max_operations: int = Field(3, ge=1)
    flawed_facts: int = Field(20, ge=0)
    wrong_probability: float = Field(0.65, ge=0, lt=1)
    seed: Seed = 0


def compute(left: int, operator: str, right: int) -> int:
    """One fact, modulo 10."""
    if operator == "+":
        return (left + right) % 10
    if operator == "-":
        return (left - right) % 10
    return (left * right) % 10


def parse(question: str) -> tuple[int, list[tuple[str, int]]]:
    """``"7+8*3="`` → ``(7, [("+", 8), ("*", 3)])``."""
    body = question.rstrip("=")
    return int(body[0]), [(body[i], int(body[i + 1])) for i in range(1, len(body), 2)]


def answer(question: str) -> int:
    value, operations = parse(question)
    for operator, operand in operations:
        value = compute(value, operator, operand)
    return value


def is_correct(question: str, completion: str) -> bool:
    """Whether a completion's last step ends in the correct result."""
    return completion.rpartition("=")[1:] == ("=", str(answer(question)))


def draw_question(rng: random.Random, config: ArithmeticConfig) -> str:
    """A question with its number of operations, operands and operators drawn uniformly."""
    count = rng.randint(config.min_operations, config.max_operations)
    tail = "".join(rng.choice(config.operators) + str(rng.randrange(10)) for _ in range(count))
    return f"{rng.randrange(10)}{tail}="


class FlawedSolver:
    """Writes solutions in which the flawed facts are wrong with the configured probability.

    Raises:
        ConfigError: more flawed facts than facts, or an impossible number of operators.
    """

    def __init__(self, config: ArithmeticConfig) -> None:
        facts = [(a, o, b) for a in range(10) for o in config.operators for b in range(10)]
        if not 0 <= config.flawed_facts <= len(facts):
            raise ConfigError(
                f"flawed_facts must lie in 0..{len(facts)}, got {config.flawed_facts}."
            )
        if not 1 <= config.min_operations <= config.max_operations:
            raise ConfigError(
                "Expected 1 <= min_operations <= max_operations, got "
                f"{config.min_operations} and {config.max_operations}."
            )
        self.config = config
        rng = random.Random(config.seed)
        self.wrong_answers: dict[_Fact, int] = {
            fact: (compute(*fact) + rng.randrange(1, 10)) % 10
            for fact in rng.sample(facts, config.flawed_facts)
        }

    def solve(self, question: str, rng: random.Random | None = None) -> str:
        """A worked solution. With ``rng``, each flawed fact is randomly correct or incorrect."""
        value, operations = parse(question)
        steps = []
        for operator, operand in operations:
            fact = (value, operator, operand)
            result = compute(*fact)
            flawed = rng is not None and fact in self.wrong_answers
            if flawed and rng is not None and rng.random() < self.config.wrong_probability:
                result = self.wrong_answers[fact]
            steps.append(f"{value}{operator}{operand}={result}")
            value = result
        return ";".join(steps)


def load(
    split: str = "train", *, path: str | None = None, rows: Count = 4000, seed: Seed = 0,
    flawed: bool = False, reading: Any = None, **task: Any,
) -> Iterator[Comparison]:
    """Pairs of a correct and an incorrect solution of a question, from the flawed solver.

    Args:
        split: ``train`` or ``test``; the two draw from different random streams.
        path: not used, there is no file; present because every source takes it.
        rows: number of comparisons.
        seed: seed of the questions and draws (``task_seed`` is the seed of the flawed facts).
        flawed: the first response is the wrong one with ``wrong_probability``. These are not
            preferences, but text to train a policy with systematic errors.
        reading: not used, as `path`.
        task: fields of `ArithmeticConfig`; ``task_seed`` for its seed.
    """
    if path is not None:
        raise ConfigError(f"The arithmetic source is generated and takes no path, got {path}.")
    if "task_seed" in task:
        task["seed"] = task.pop("task_seed")
    config = load_config(ArithmeticConfig, task)
    solver = FlawedSolver(config)
    if not solver.wrong_answers or not config.wrong_probability:
        raise ConfigError("Without flawed facts every solution is correct; set flawed_facts > 0.")
    rng = random.Random(f"{split}/{seed}")
    made = 0
    while made < rows:
        question = draw_question(rng, config)
        drawn = {solver.solve(question, rng) for _ in range(6)}
        correct = sorted(text for text in drawn if is_correct(question, text))
        incorrect = sorted(text for text in drawn if not is_correct(question, text))
        if correct and incorrect:
            first, second = rng.choice(correct), rng.choice(incorrect)
            if flawed and rng.random() < config.wrong_probability:
                first, second = second, first
            yield Comparison(
                id=f"{split}-{made}", prompt=question, chosen=first, rejected=second,
                source="arithmetic",
            )
            made += 1


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` with one token per character, ``<eos>`` and ``<pad>``."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import Fuse
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
