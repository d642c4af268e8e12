"""Functions that a chat template lists are read when rows are scored, as they were in training."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.responses import Responses
from rewardsteer.data.tokenize import encode_rows
from rewardsteer.errors import MismatchError
from rewardsteer.evaluation.preference import evaluate_comparisons
from rewardsteer.evaluation.responses import evaluate_responses
from rewardsteer.integrations.trl import RewardFunction
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Comparison
from tests.evaluation.test_scoring import make, read, write

TOOLS = [{"type": "function", "function": {"name": "add"}}]
CHAT = (
    "{% if tools %}[{{ tools[0].function.name }}]{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROWS = [
    {"prompt": "2+2", "completion": "4", "tools": TOOLS},
    {"prompt": "2+2", "completion": "4"},
    {"prompt": "2+2", "completion": "4", "tools": json.dumps(TOOLS)},
]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    root = tmp_path_factory.mktemp("tools")
    made = make(root, "rm", kind="scalar", append_eos=False, end="eos")
    made.tokenizer.chat_template = CHAT
    made.tokenizer.save_pretrained(root / "rm")
    return load_scorer(root / "rm")


def rewards_of(scorer, texts, tools):
    rows = encode_rows(["2+2"] * len(texts), texts, scorer.template, scorer.tokenizer, tools=tools)
    return scorer.score_ids([one.prompt_ids for one in rows], [one.response_ids for one in rows])


def test_score(scorer, tmp_path):
    line = ["score", "--reward-model", scorer.name, "--input",
            str(write(tmp_path / "x.jsonl", ROWS)), "--output", str(tmp_path / "y.jsonl")]
    result = CliRunner().invoke(app, [*line, "--steps"])
    assert result.exit_code == 0, result.output
    found = read(tmp_path / "y.jsonl")
    expected = rewards_of(scorer, ["4"] * 3, [TOOLS, None, TOOLS])
    assert expected[0] != expected[1]
    np.testing.assert_allclose([row["reward"] for row in found], expected, rtol=1e-5)
    assert [row["step_rewards"] is None for row in found] == [True, False, True]
    assert "without tools" in found[0]["skipped"]


def test_rows_with_other_tools_are_refused(scorer, tmp_path):
    source = write(tmp_path / "x.jsonl", [ROWS[1], ROWS[1] | {"tools": [1]}])
    result = CliRunner().invoke(app, [
        "score", "--reward-model", scorer.name, "--input", str(source), "--output",
        str(tmp_path / "y.jsonl"),
    ])
    assert result.exit_code == 2
    assert "line 2: expected a list of functions" in " ".join(result.output.split())


def test_evaluations(scorer):
    """Comparisons and rated responses have the rewards of rows with tools."""
    pairs = [
        Comparison(id=str(n), prompt="2+2", chosen="4", rejected="7", tools=own)
        for n, own in enumerate((TOOLS, None))
    ]
    with_tools = rewards_of(scorer, ["4", "7"], [TOOLS] * 2)
    without = rewards_of(scorer, ["4", "7"], None)
    seen = evaluate_comparisons(scorer, pairs)
    mean = np.mean([with_tools[0] - with_tools[1], without[0] - without[1]])
    assert seen["all"]["margin"] == pytest.approx(mean, rel=1e-4)
    rated = [Responses(
        id="r", prompt="2+2", responses=["4", "7", "44"], numbers={"rating": [1.0, 2.0, 3.0]},
        tools=TOOLS,
    )]
    found = evaluate_responses(scorer, rated)["rating"]["pearson"]
    rewards = rewards_of(scorer, ["4", "7", "44"], [TOOLS] * 3)
    assert found == pytest.approx(np.corrcoef(rewards, [1, 2, 3])[0, 1], abs=1e-5)


def test_rewards_in_trl(scorer):
    """TRL passes the column ``tools`` of its dataset."""
    rows = {"prompts": ["2+2"] * 3, "completions": ["4"] * 3}
    found = RewardFunction(scorer)(**rows, tools=[row.get("tools") for row in ROWS])
    expected = rewards_of(scorer, ["4"] * 3, [TOOLS, None, TOOLS])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0] != found[1]


def test_a_model_of_texts_refuses_them():
    class Texts(TextScorer):
        kind = "texts"

        def score(self, prompts, completions, *, batch_size=16, closed=True):
            return np.zeros(len(prompts))

    pairs = [Comparison(id="0", prompt="a", chosen="b", rejected="c", tools=TOOLS)]
    with pytest.raises(MismatchError, match="rows with tools"):
        evaluate_comparisons(Texts(), pairs)
