"""The demo's comparison of methods, with weights chosen on separate questions."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rewardsteer.data.sources.arithmetic import is_correct
from rewardsteer.decoding.methods import accepts_goal
from rewardsteer.decoding.policy import load_policy
from rewardsteer.decoding.requests import Request
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.processes import Processes
from rewardsteer.demo.reward_models import load_all, plans
from rewardsteer.demo.rows import GUIDED, Row, all_rows, cards_row, guided_row, settings_of
from rewardsteer.demo.world import TEMPLATE, Samples, draw_questions, known_questions
from rewardsteer.evaluation.budget import Budget
from rewardsteer.evaluation.entries import Entry, Judge
from rewardsteer.evaluation.generation import compare
from rewardsteer.evaluation.judged_run import Run
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.evaluation.record_files import read_records
from rewardsteer.evaluation.statistics import auroc_interval, share
from rewardsteer.goals.files import load_goal
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.scorer import Scorer
from rewardsteer.outputs import file_name

Figures = dict[str, dict[str, float]]

class Part(NamedTuple):
    """Questions of a random stream that all rows answer; ``budget`` is per question."""

    stream: str
    questions: int
    budget: Budget | None = None


@dataclass(frozen=True)
class World:
    """The models that answer, and the output folder; answers go to ``OUT/comparison``."""

    policy: ComparedPolicy
    scorers: Mapping[str, Scorer]
    config: DemoConfig
    out: Path

    def run_of(self, part: Part) -> Run:
        """The settings that all rows of a part share."""
        questions = draw_questions(part.questions, self.config, part.stream)
        place = self.folder(part)
        return Run(
            self.policy,
            [Request(id=f"{part.stream}/{i}", prompt=q) for i, q in enumerate(questions)],
            Judge(self.scorers["plain"], {
                "accuracy": lambda answer: is_correct(answer.prompt, answer.completion)
            }),
            place, TEMPLATE, part.budget,
            known=None if part.budget is None else place.with_name(part.stream),
        )

    def folder(self, part: Part) -> Path:
        """The folder of a part's answers."""
        return self.out / "comparison" / (part.stream if part.budget is None else "budget")

    def entry(self, row: Row) -> Entry:
        """A row with its reward model, and its goal state where it needs one."""
        if row.model is None:
            return Entry(row.label, row.config)
        scorer = self.scorers[row.model]
        goal = load_goal(Path(scorer.name)) if accepts_goal(row.config.method) else None
        return Entry(row.label, row.config, scorer, goal)

    def answer(self, row: Row, part: Part) -> None:
        """Answer a part's questions by one row; `compare` finds the answers."""
        self.run_of(part).records(self.entry(row))


def judge_samples(
    scorers: Mapping[str, Scorer], fresh: Samples, config: DemoConfig
) -> dict[str, dict[str, float]]:
    """AUROC of each reward model on new solutions of the policy, labelled by the checker;
    ``auroc_new`` leaves out the questions in `known_questions`."""
    known, figures = known_questions(config), {}
    new = [i for i, question in enumerate(fresh.questions) if question not in known]
    labels = [fresh.correct[i] for i in new]
    for name, scorer in scorers.items():
        rewards = scorer.score(fresh.questions, fresh.solutions, batch_size=250)
        figures[name] = {
            **auroc_interval(fresh.correct, rewards).figures("auroc"),
            **auroc_interval(labels, rewards[new]).figures("auroc_new"),
        }
    return figures


def compare_methods(
    world: World, processes: Processes | None, *, goal_threshold: float,
    announce: Callable[[str], None],
) -> tuple[Figures, Figures, dict[str, float]]:
    """Figures by method, figures by method at equal token budgets, and the weight chosen for each
    guided method (for ``cards`` its reward target).

    The budget is the number of tokens that best-of-n processes per question.

    Weights are chosen by the mean reward of the Bradley-Terry model on the tuning questions, which
    are not those of the comparison. The untrained FaRMA head gets the weight of the trained one.
    The goal filter drops solutions below ``goal_threshold``, chosen on labels of other questions.
    """
    config = world.config
    known = known_questions(config)

    def run(rows: Sequence[Row], part: Part) -> Figures:
        if processes is not None:
            calls = {row.label: (world.out, config, row, part) for row in rows}
            processes.run(_answer, calls, announce)
        shared = world.run_of(part)
        figures = compare(
            [world.entry(row) for row in rows], shared.policy, shared.requests, shared.judge,
            shared.out, template=TEMPLATE, budget=part.budget, known=shared.known,
            announce=announce if processes is None else lambda label: None,
        )
        return {
            label: one | _on_new_questions(shared.out / file_name(label), known)
            for label, one in figures.items()
        }

    weights = _tuned(lambda rows: run(rows, Part("tuning", config.tuning_prompts)), config)
    rows, part = all_rows(weights, goal_threshold, config), Part("test", config.test_prompts)
    methods = run(rows, part)
    budget = Budget("tokens", methods["best_of_n"]["equivalent_tokens"])
    announce(f"the same, with {budget.per_prompt:.0f} tokens per question for each")
    sampled = [row for row in rows if not row.label.startswith("none ")]
    return methods, run(sampled, part._replace(budget=budget)), weights


def _answer(out: Path, config: DemoConfig, row: Row, part: Part) -> None:
    """Answer a part by one row, in another process."""
    _world(out, config.model_dump_json()).answer(row, part)


@functools.cache
def _world(out: Path, settings: str) -> World:
    config, place = DemoConfig.model_validate_json(settings), out / "policy" / "model"
    scorers = load_all([plan.name for plan in plans(config)], out)
    policy = ComparedPolicy.loaded(load_policy(place), load_tokenizer(place))
    return World(policy, scorers, config, out)


def _tuned(run: Callable[[Sequence[Row]], Figures], config: DemoConfig) -> dict[str, float]:
    """The weight of each guided method, and the reward target of ``cards``."""
    names = {
        label: {f"{label} {weight:g}": weight for weight in config.weights} for label in GUIDED
    }
    guided = [
        guided_row(name, label, weight, config)
        for label, own in names.items() for name, weight in own.items()
    ]
    tried = run([Row("none", settings_of(config)), *guided])
    weights = {
        label: own[max(own, key=lambda name: tried[name]["reward"])] for label, own in names.items()
    }
    plain = tried["none"]
    spread = plain["reward_stderr"] * math.sqrt(plain["count"])
    targets = {f"cards {one:.3g}": one for one in (plain["reward"], plain["reward"] + spread)}
    tried = run([cards_row(name, target, config) for name, target in targets.items()])
    weights["cards"] = targets[max(targets, key=lambda name: tried[name]["reward"])]
    return weights


def _on_new_questions(place: Path, known: Set[str]) -> dict[str, float]:
    """``accuracy_new`` with its interval, over the ``new_questions`` that are not in ``known``."""
    values = [
        one.metrics["accuracy"] for one in read_records(place).values()
        if one.generation.prompt not in known
    ]
    return {"new_questions": len(values), **share(values).figures("accuracy_new")}
