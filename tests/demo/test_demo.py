"""The demo at a size of seconds: its files, its promises about calls, its page."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import rewardsteer
from rewardsteer.data.sources.arithmetic import (
    ArithmeticConfig,
    FlawedSolver,
    answer,
    compute,
    draw_question,
    is_correct,
)
from rewardsteer.decoding.policy import load_policy
from rewardsteer.demo.compare import World, compare_methods
from rewardsteer.demo.config import DemoConfig
from rewardsteer.demo.processes import side_by_side
from rewardsteer.demo.reward_models import Task, load_all, place_of, plans, train_all
from rewardsteer.demo.story import run_demo
from rewardsteer.demo.world import draw_questions, make_pairs, sample_pairs
from rewardsteer.errors import ConfigError, OutputError, RewardsteerError
from rewardsteer.evaluation.policies import ComparedPolicy
from rewardsteer.models.checkpoint import load_tokenizer
from tests.demo import calls

SMALL = DemoConfig(
    hidden_size=32, heads=2, policy_steps=40, questions=300, samples=4, reward_steps=4, fresh=60,
    tuning_prompts=6, test_prompts=11, weights=[1.0, 2.0], candidates=3, best_of=2, speculative=3,
    vote_questions=40, vote_samples=4, num_proc=1,
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run_demo(SMALL, out, progress=False)


def test_summary_holds_what_is_promised(demo):
    out, summary = demo
    assert json.loads((out / "summary.json").read_text()) == summary
    wanted = {
        "accuracy", "reward", "reward_stderr", "lm_calls_per_token", "rm_calls_per_token",
        "rm_tokens_per_token", "seconds_per_token",
    }
    for figures in summary["methods"].values():
        assert wanted <= figures.keys()
    assert summary["seconds"] > 0


def test_recipes_name_folders_that_it_writes(demo):
    file = Path(rewardsteer.__file__).parent / "recipes" / "arithmetic" / "distil.yaml"
    recipe = yaml.safe_load(file.read_text())
    for name in ("policy", "teacher"):
        assert (demo[0] / Path(recipe[name]).relative_to("demo-out") / "config.json").is_file()


def test_equal_budgets(demo):
    out, summary = demo
    affordable = summary["methods"]["best_of_n"]["equivalent_tokens"]
    budget = summary["budget"]
    assert budget.keys() >= {
        "none", "best_of_n", "args", "pargs", "genarm", "farma", "cards", "speculative_rejection",
        "goal_filter",
    }
    assert budget["best_of_n"]["draws"] == SMALL.best_of
    assert budget["none"]["draws"] == 1
    for name, figures in budget.items():
        # Draws differ in length, so what was planned and what was spent differ a little.
        assert figures["draws"] == 1 or figures["equivalent_tokens"] < 1.3 * affordable, name
    assert 'id="budget"' in (out / "report.html").read_text()


def test_questions_that_nothing_was_trained_on_are_told_apart(demo):
    out, summary = demo
    known = {
        question for stream, count in (
            ("pairs", SMALL.questions), ("tuning", SMALL.tuning_prompts),
            ("votes", SMALL.vote_questions),
        ) for question in draw_questions(count, SMALL, stream)
    }
    rows = [json.loads(line) for line in
            (out / "comparison" / "test" / "farma.jsonl").read_text().splitlines()]
    new = [row["metrics"]["accuracy"] for row in rows
           if row["generation"]["prompt"] not in known]
    figures = summary["methods"]["farma"]
    assert 0 < figures["new_questions"] == len(new) < len(rows)
    assert figures["accuracy_new"] == pytest.approx(sum(new) / len(new))
    assert all("auroc_new" in one for one in summary["reward_models"].values())
    page = (out / "report.html").read_text()
    assert f"{len(new)} of the test questions occur neither in the training pairs nor among" in page


def test_goal_section(demo):
    out, summary = demo
    goal = summary["goal"]
    for name in (
        "auroc", "auroc_baseline", "vote_accuracy", "vote_accuracy_filtered", "tokens_saved",
    ):
        assert 0 <= goal[name] <= 1
    assert goal["auroc_by_percentile"].keys() == {"reward", "similarity", "baseline"}
    whole = goal["auroc_by_percentile"]["reward"][-1]
    assert whole["percentile"] == 1
    assert whole["auroc"] == pytest.approx(goal["auroc"])
    metrics = json.loads((out / "goal" / "goal" / "metrics.json").read_text())["arithmetic"]
    assert metrics["auroc"] == goal["auroc"]
    assert 'id="goal"' in (out / "report.html").read_text()
    assert (out / "reward_models" / "goal" / "model" / "goal_states.safetensors").exists()


def test_calls_per_token(demo):
    methods = demo[1]["methods"]
    for name in ("farma", "farma (zeros)", "farma (untrained)"):
        assert methods[name]["rm_calls_per_token"] == 1
        assert methods[name]["lm_calls_per_token"] == 1
    for name in ("args", "pargs"):
        assert methods[name]["rm_calls_per_token"] == SMALL.candidates
    assert methods["none"]["rm_calls_per_token"] == 0


def test_page_shows_every_method(demo):
    page = (demo[0] / "report.html").read_text()
    for name in demo[1]["methods"]:
        assert name in page


@pytest.mark.slow
def test_processes_train_and_compare_alike(demo, tmp_path):
    """Reward models and answers are those of one process."""
    out, summary = demo
    tokenizer = load_tokenizer(out / "policy" / "model")
    policy = load_policy(out / "policy" / "model")
    some = [plan for plan in plans(SMALL) if plan.name in ("plain", "farma")]
    told = []
    rows = make_pairs(sample_pairs(policy, tokenizer, SMALL), tokenizer, SMALL)
    with side_by_side(2, tmp_path) as both:
        task = Task(out / "policy" / "model", tokenizer, rows, SMALL, tmp_path)
        found = train_all(some, task, both, progress=False, announce=told.append)
        assert found.keys() == {"plain", "farma"}
        assert sorted(told[1:]) == ["  farma", "  plain"]
        for plan in some:
            alone, beside = (
                load_file(place_of(plan.name, place) / "model.safetensors")
                for place in (out, tmp_path)
            )
            assert alone.keys() == beside.keys()
            for name, values in alone.items():
                # Number of threads decides the order of sums.
                assert torch.allclose(values, beside[name], atol=1e-5), name
        compared = shutil.copytree(
            out, tmp_path / "again", ignore=shutil.ignore_patterns("comparison")
        )
        scorers = load_all([plan.name for plan in plans(SMALL)], compared)
        world = World(ComparedPolicy.loaded(policy, tokenizer), scorers, SMALL, compared)
        methods, budget, weights = compare_methods(
            world, both, goal_threshold=summary["goal"]["threshold"], announce=told.append
        )
        assert weights == summary["weights"]
        for part, figures in (("methods", methods), ("budget", budget)):
            assert [one["accuracy"] for one in figures.values()] == [
                one["accuracy"] for one in summary[part].values()
            ]
        assert {"args 1", "cards", "farma (untrained)"} <= set(told)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_process_that_fails_or_is_killed_ends_the_others(tmp_path):
    told = []

    def run(both, work):
        with pytest.raises(ConfigError, match="no such thing"):
            both.run(calls.fail, {"fails": ()}, told.append)
        both.run(work, {"dies": ()}, told.append)

    with pytest.raises(RewardsteerError, match="was killed; with num_proc=1"):  # noqa: SIM117
        with side_by_side(2, tmp_path) as both:
            run(both, calls.die)
    assert not multiprocessing.active_children()
    assert told == []
    with side_by_side(1, tmp_path) as none:
        assert none is None


def test_output_is_not_overwritten_unasked(demo):
    with pytest.raises(OutputError, match="not empty"):
        run_demo(SMALL, demo[0], progress=False)


def test_flaw_is_systematic():
    import random

    config = ArithmeticConfig(flawed_facts=20, wrong_probability=0.65)
    solver, rng = FlawedSolver(config), random.Random(0)
    assert len(solver.wrong_answers) == 20
    assert all(wrong != compute(*fact) for fact, wrong in solver.wrong_answers.items())
    right = sum(
        is_correct(question, solver.solve(question, rng))
        for question in (draw_question(rng, config) for _ in range(500))
    )
    assert 200 < right < 450
    question = draw_question(rng, config)
    assert is_correct(question, solver.solve(question))
    assert solver.solve(question).endswith(f"={answer(question)}")


def test_impossible_tasks_are_refused():
    with pytest.raises(ConfigError, match=r"0\.\.100"):
        FlawedSolver(ArithmeticConfig(flawed_facts=101))
    with pytest.raises(ConfigError, match="min_operations"):
        FlawedSolver(ArithmeticConfig(min_operations=3, max_operations=2))
