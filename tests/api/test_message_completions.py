"""Completions that are lists of chat messages: the reward is what the chat template's author
computes of the whole conversation, in Python, in files, over HTTP and inside TRL."""

import json
import shutil

import numpy as np
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from rewardsteer import RewardModel
from rewardsteer.cli.main import app
from rewardsteer.data.sources.turns import read_pair
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.integrations.trl import RewardFunction
from rewardsteer.models.text_scorer import TextScorer
from rewardsteer.records import Message
from tests.chat import CHATML, chat_tokenizer, plain_reward, save_classifier

ASKED = [{"role": "user", "content": "7+8?"}]
ANSWER = {"role": "assistant", "content": "It is 15."}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "add", "arguments": {"a": 7, "b": 8}}},
]}
RESULT = {"role": "tool", "content": "15"}
# ChatML that writes calls of tools behind the content, and nothing where there is none.
WITH_TOOLS = CHATML.replace(
    "message['content'] + '<|im_end|>'",
    "(message['content'] or '') + (message.tool_calls | tojson if message.tool_calls else '') + "
    "'<|im_end|>'",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = save_classifier(tmp_path_factory.mktemp("messages") / "chatml", "chatml")
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = WITH_TOOLS
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rm(folder):
    return RewardModel.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("completion", [
    [ANSWER], [CALL, RESULT, ANSWER], [ANSWER, {"role": "user", "content": "Sure?"}, ANSWER],
], ids=["one", "tools", "turns"])
def test_the_reward_is_that_of_the_conversation_written_by_hand(folder, rm, completion):
    by_hand = plain_reward(folder, ASKED + completion)
    assert rm.score(ASKED, completion) == pytest.approx(by_hand, abs=1e-5)
    assert rm.score([ASKED], [completion]) == pytest.approx([by_hand], abs=1e-5)
    # With the prompt once more, as implicit prompts of TRL and UltraFeedback's rows have it.
    assert rm.score(ASKED, ASKED + completion) == pytest.approx(by_hand, abs=1e-5)
    assert rm.score("7+8?", ASKED + completion) == pytest.approx(by_hand, abs=1e-5)
    assert rm.score(ASKED + completion) == pytest.approx(by_hand, abs=1e-5)
    assert rm.token_scores(ASKED, completion).rewards[-1] == pytest.approx(by_hand, abs=1e-5)
    trl = RewardFunction(rm.scorer)
    assert trl([ASKED], [completion]) == pytest.approx([by_hand], abs=1e-5)


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
LISTED = "{% if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"


@pytest.fixture(scope="module")
def with_tools(folder, tmp_path_factory):
    own = tmp_path_factory.mktemp("tools") / "model"
    shutil.copytree(folder, own)
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = LISTED + WITH_TOOLS
    tokenizer.save_pretrained(own)
    return own


def test_tools_reach_the_chat_template(with_tools):
    rm = RewardModel.from_pretrained(with_tools, device="cpu")
    talk = [*ASKED, CALL, RESULT, ANSWER]
    by_hand = plain_reward(with_tools, talk, tools=TOOLS)
    without = plain_reward(with_tools, talk)
    assert abs(by_hand - without) > 1e-4
    answer = [CALL, RESULT, ANSWER]
    assert rm.score(ASKED, answer, tools=TOOLS) == pytest.approx(by_hand, abs=1e-5)
    assert rm.score(talk, tools=TOOLS) == pytest.approx(by_hand, abs=1e-5)
    # A bare schema is wrapped as OpenAI writes it, and JSON text is read.
    assert rm.score(talk, tools=[TOOLS[0]["function"]]) == pytest.approx(by_hand, abs=1e-5)
    assert rm.score(talk, tools=json.dumps(TOOLS)) == pytest.approx(by_hand, abs=1e-5)
    each = rm.score([ASKED, ASKED], [answer, answer], tools=[TOOLS, None])
    assert each == pytest.approx([by_hand, without], abs=1e-5)
    assert rm.rank(ASKED, [answer], tools=TOOLS)[0].score == pytest.approx(by_hand, abs=1e-5)
    rows = Dataset.from_dict({
        "prompt": ["7+8?"] * 2, "completion": ["It is 15."] * 2,
        "tools": [json.dumps(TOOLS), None],
    })
    one = rm.score("7+8?", "It is 15.", tools=TOOLS)
    assert rm.score(rows) == pytest.approx([one, rm.score("7+8?", "It is 15.")], abs=1e-5)


@pytest.mark.parametrize(("tools", "words"), [
    ([TOOLS, None, None], "got 3 lists for 2 rows"), (3, "expected a list of functions"),
    ([len, len], "Row 1: expected a list of functions"),
])
def test_other_tools_are_refused_in_a_sentence(rm, tools, words):
    with pytest.raises(DataError, match=words):
        rm.score([ASKED, ASKED], ["15", "16"], tools=tools)


def test_tools_need_a_model_that_reads_tokens():
    class Texts(TextScorer):
        name, kind = "texts", "judge"

        def score(self, prompts, completions, *, batch_size=16, closed=True):
            return np.zeros(len(prompts))

    with pytest.raises(MismatchError, match="rows with tools"):
        RewardModel(Texts()).score(ASKED, "15", tools=TOOLS)


def test_a_message_is_its_text(rm):
    text = rm.score(ASKED, ANSWER["content"])
    assert rm.score(ASKED, [ANSWER]) == rm.score("7+8?", [ANSWER]) == text
    assert rm.score(ASKED, [Message(**ANSWER)]) == text
    mixed = rm.score(ASKED, [[ANSWER], ANSWER["content"]])
    assert mixed == pytest.approx([text, text], abs=1e-6)
    ranked = rm.rank(ASKED, [[ANSWER], "No."])
    assert {one.index: one.completion for one in ranked} == {0: [ANSWER], 1: "No."}
    assert [one.score for one in rm.rank(ASKED, [ANSWER])] == [text]


@pytest.mark.parametrize(("prompt", "completion", "words"), [
    (ASKED, [CALL], "the last message of completion is a tool call"),
    (ASKED, [ANSWER, RESULT], "at the end of completion, got one of the role 'tool'"),
    ("7+8?", [CALL, RESULT, ANSWER], "holds 3 messages and the prompt is text"),
    (ASKED, [{"role": "user", "content": "9?"}, ANSWER], "do not begin with the prompt"),
    (ASKED, [{"role": "assistant"}], "there is no 'content'"),
    (ASKED, [], "an empty list"),
    (ASKED, 3, "got a number"),
])
def test_other_messages_are_refused_in_a_sentence(prompt, completion, words):
    with pytest.raises(DataError, match=r"line 4: .*" + words):
        read_pair(prompt, completion, "line 4")


def test_a_thought_is_written_before_the_answer():
    thoughtful = {**ANSWER, "reasoning_content": "7 and 8"}
    assert read_pair(ASKED, [thoughtful], "")[1] == "<think>\n7 and 8\n</think>\n\nIt is 15."


def score(folder, tmp_path, rows, *more):
    source = tmp_path / "x.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return CliRunner().invoke(app, [
        "score", "--reward-model", str(folder), "--input", str(source), "--output",
        str(tmp_path / "y.jsonl"), "--device", "cpu", *more,
    ])


@pytest.mark.parametrize("more", [(), ("--tokens",), ("--steps",)])
def test_files(folder, tmp_path, more):
    rows = [
        {"prompt": ASKED, "completion": [CALL, RESULT, ANSWER]},
        {"prompt": "7+8?", "completion": [ANSWER]}, {"prompt": ASKED, "completion": "It is 15."},
    ]
    result = score(folder, tmp_path, rows, *more)
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in ("prompt", "completion")} for row in found] == rows
    talks = [[*ASKED, CALL, RESULT, ANSWER], [*ASKED, ANSWER], [*ASKED, ANSWER]]
    by_hand = [plain_reward(folder, talk) for talk in talks]
    assert [row["reward"] for row in found] == pytest.approx(by_hand, abs=1e-5)
    if more == ("--steps",):
        assert [row["step_rewards"][-1] for row in found] == pytest.approx(by_hand, abs=1e-5)


def test_graded_solutions(folder, tmp_path):
    """A label makes rows solutions, whose completion is written as text."""
    result = score(folder, tmp_path, [
        {"prompt": ASKED, "completion": [ANSWER], "is_correct": True}
    ], "--no-tokens")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "y.jsonl").read_text())
    assert found["completion"] == ANSWER["content"]
    assert found["reward"] == pytest.approx(plain_reward(folder, [*ASKED, ANSWER]), abs=1e-5)


def test_a_file_is_refused_before_a_model_loads(tmp_path):
    rows = [{"prompt": ASKED, "completion": [ANSWER]}, {"prompt": ASKED, "completion": [CALL]}]
    result = score(tmp_path, tmp_path, rows)
    assert result.exit_code == 2
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    result = score(tmp_path, tmp_path, rows)
    assert "x.jsonl, line 2: the last message of completion is a tool call" in result.output
    result = score(tmp_path, tmp_path, [{"prompt": ASKED, "chosen": [ANSWER], "rejected": [CALL]}])
    assert "rewardsteer evaluate preference --input" in " ".join(result.output.split())
