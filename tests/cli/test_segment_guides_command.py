"""cards, speculative_rejection and goal_filter through `generate` and `evaluate generation`."""

import json

import pytest
import torch
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.goals.calibration import PositionCalibration, Range, save_calibration
from rewardsteer.goals.files import save_goals
from rewardsteer.goals.goal_state import GoalState, Provenance
from rewardsteer.models.checkpoint import CheckpointCard, fingerprint, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import save_tiny

CARDS = ("cards", "reward_target=0.5", "segment_tokens=3", "segment_min=1")
REJECTION = ("speculative_rejection", "decision_tokens=2")
FILTER = ("goal_filter", "drop_threshold=0.0", "drop_start=1", "vote_stop=esc", "vote_window=2")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    base, head = save_tiny(root / "base"), HeadConfig(kind="scalar")
    torch.manual_seed(0)
    RewardModel.from_base(base, head).save_pretrained(
        root / "rm", load_tokenizer(base), CheckpointCard(head=head)
    )
    made = Provenance(kind="mean", model_fingerprint=fingerprint(root / "rm"))
    save_goals(root / "rm", {"good": GoalState("good", torch.randn(1, 32), made)})
    (root / "prompts.jsonl").write_text("".join(
        json.dumps({"prompt": f"{i}+{i}=", "id": f"q{i}"}) + "\n" for i in range(3)
    ))
    return root


def generate(world, output, method, *settings, more=()):
    arguments = [
        "generate", "--model", world / "base", "--reward-model", world / "rm", "--method", method,
        "--prompts", world / "prompts.jsonl", "--output", output, "--max-new-tokens", 6,
        *([] if method == "cards" else ["--n", 4]),
        *(part for setting in settings for part in ("--set", setting)), *more,
    ]
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("named", [CARDS, REJECTION, FILTER], ids=lambda one: one[0])
def test_generate(world, tmp_path, named):
    output = tmp_path / "o.jsonl"
    result = generate(world, output, *named)
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [one["id"] for one in answers] == ["q0", "q1", "q2"]
    assert all(one["method"] == named[0] and one["cost"]["rm_calls"] for one in answers)
    settings = json.loads((tmp_path / "o.jsonl.settings.json").read_text())
    name, _, value = named[1].partition("=")
    assert settings[name] == float(value)
    again = generate(world, output, *named, more=("--resume",))
    assert again.exit_code == 0
    other = generate(world, output, *named, "acceptance=0.1", more=("--resume",))
    assert other.exit_code == 2
    assert "acceptance" in other.stderr


@pytest.mark.parametrize(("named", "message"), [
    (("cards",), "needs a reward_target"),
    (("cards", "reward_taget=1"), "reward_target"),
    (("cards", "reward_target"), "as dotted.name=value"),
    (("cards", "reward_target=high"), "reward_target"),
    (("speculative_rejection", "reject_share=1"), "reject_share"),
    (("goal_filter", "drop_rule=probability"), "needs a calibration"),
    (("goal_filter", "drop_rule=sometimes"), "drop_rule"),
])
def test_bad_settings_stop_before_anything_is_written(world, tmp_path, named, message):
    result = generate(world, tmp_path / "o.jsonl", *named)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "o.jsonl").exists()


def test_a_calibration_of_other_weights(world, tmp_path):
    place = tmp_path / "c.json"
    save_calibration(PositionCalibration(
        ranges=[Range(start=0, similarities=[0.0], probabilities=[0.5])], model_fingerprint="x"
    ), place)
    result = generate(
        world, tmp_path / "o.jsonl", "goal_filter", "drop_rule=probability", f"calibration={place}"
    )
    assert result.exit_code == 2
    assert "belongs to a reward model with other weights" in " ".join(result.stderr.split())


def test_evaluate_at_equal_budgets(world, tmp_path):
    methods = tmp_path / "methods.yaml"
    alone = f"max_new_tokens: 5, reward_model: {world / 'rm'}"
    shape = f"n: 3, {alone}"
    methods.write_text(f"""
        none: {{method: none, max_new_tokens: 5}}
        cards: {{method: cards, {alone}, reward_target: 0.5, segment_min: 1, segment_tokens: 2}}
        rejection: {{method: speculative_rejection, {shape}, decision_tokens: 2}}
        filter: {{method: goal_filter, {shape}, drop_threshold: 0.0, drop_start: 1}}
    """)
    result = CliRunner().invoke(app, [str(one) for one in (
        "evaluate", "generation", "--model", world / "base", "--prompts", world / "prompts.jsonl",
        "--methods", methods, "--judge", world / "rm", "--out", tmp_path / "out",
        "--budget", "tokens", "--budget-per-prompt", 150,
    )])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]
    assert list(figures) == ["none", "cards", "rejection", "filter"]
    assert figures["cards"]["draws"] > 1
    for label in ("cards", "rejection", "filter"):
        assert figures[label]["rm_tokens_per_token"] > 0
