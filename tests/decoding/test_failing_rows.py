"""A row that cannot go on fails alone, by every method: the others are what they are without it."""

import json
from types import SimpleNamespace

import pytest
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.answering import Answers
from rewardsteer.decoding.asking import Ask
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate, require_answers
from rewardsteer.decoding.requests import Request
from rewardsteer.decoding.sample import Encoded
from rewardsteer.errors import DataError, RewardsteerError
from rewardsteer.goals.goal_state import GoalState, Provenance
from tests.decoding.test_generate import folders, make_policy, make_scorer  # noqa: F401

PROMPTS = ["What is 7+8?", "zz top", "a", "Sum of three, four and 5: ", "jazz", "Who?"]
REQUESTS = [Request(id=f"r{i}", prompt=prompt) for i, prompt in enumerate(PROMPTS)]
FAILING = {"r1", "r4"}
SHARED = {"max_new_tokens": 9, "seed": 2, "top_k": 5, "batch_size": 4, "n": 3}
METHODS = {
    "none": (None, {}), "farma": ("vocabulary", {}), "args": ("scalar", {}),
    "best_of_n": ("scalar", {}),
    "cards": ("scalar", {"reward_target": 1.0, "segment_tokens": 3, "segment_min": 1}),
    "speculative_rejection": ("scalar", {"decision_tokens": 2}),
    "goal_filter": ("scalar", {"drop_threshold": -0.2}),
    "beam": ("scalar", {"beam": 2, "branches": 2, "step_tokens": 3}),
}


def make_goal():
    vectors = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    return GoalState("good", vectors, Provenance(kind="mean", model_fingerprint=""))


def run(folders, name, requests, broken=None):  # noqa: F811
    head, own = METHODS[name]
    policy, tokenizer = make_policy(eos_bias=2.0)
    config = DecodingConfig(method=name, **SHARED | own)
    scorer = head and make_scorer(folders["llama"], head)
    method = build_method(config, scorer, make_goal())
    # Whatever these tokens take part in is no number to this model.
    if broken is not None:
        ends_with_z = tokenizer.encode("z")
        model = policy if broken == "policy" else scorer.reward_model.carrier
        with torch.no_grad():
            model.get_input_embeddings().weight[ends_with_z] = float("nan")
            # Nor are they drawn for rows that hold none.
        policy.get_output_embeddings().bias.data[ends_with_z] = -1e9
    else:
        policy.get_output_embeddings().bias.data[tokenizer.encode("z")] = -1e9
    return list(generate(policy, tokenizer, requests, method, config, template=Template()))


@pytest.mark.parametrize(
    ("name", "broken"),
    [(name, "policy") for name in METHODS]
    + [(name, "reward") for name, (head, _) in METHODS.items() if head],
)
def test_the_others_are_what_they_are_without_it(folders, name, broken):  # noqa: F811
    alone = run(folders, name, [one for one in REQUESTS if one.id not in FAILING])
    expected = {result.id: (result.token_ids, result.completion) for result in alone}
    results = run(folders, name, REQUESTS, broken)
    assert [result.id for result in results] == [request.id for request in REQUESTS]
    for result in results:
        if result.id in FAILING:
            assert result.finish_reason == "error"
            assert "NaN or infinite" in result.error or "nan" in result.error
            assert result.id in result.error
        else:
            assert (result.token_ids, result.completion) == expected[result.id]
            assert result.error is None


def test_a_place_is_clean_after_a_row_without_numbers(folders):  # noqa: F811
    """A new row takes the failed one's place in both caches, behind columns of padding."""
    requests = [
        Request(id=f"r{i}", prompt="zz top, and more of it" if i % 2 else "ab" * (i + 1))
        for i in range(12)
    ]
    results = run(folders, "farma", requests, "reward")
    [*alone] = (run(folders, "farma", [one])[0] for one in requests[::2])
    assert [one.token_ids for one in results[::2]] == [one.token_ids for one in alone]
    assert all(one.error for one in results[1::2])


@pytest.mark.parametrize("token", [-1, 10_000])
def test_prompts_with_unknown_ids_are_refused_alone(folders, token, caplog):  # noqa: F811
    requests = [
        Request(id="good", prompt="", prompt_ids=[5, 6, 7]),
        Request(id="bad", prompt="", prompt_ids=[5, token, 7]),
        Request(id="better", prompt="", prompt_ids=[9]),
    ]
    good, bad, better = run(folders, "farma", requests)
    assert good.error is better.error is None
    assert f"The prompt 'bad' has the token id {token}, but the policy knows" in bad.error
    assert "1 of 3 prompts got no answer; the first one: The prompt 'bad'" in caplog.text
    with pytest.raises(RewardsteerError, match="prompt 'bad' has the token id"):
        list(require_answers(one for one in [good, bad, better]))


def test_a_prompt_that_cannot_be_written_is_refused_alone(folders):  # noqa: F811
    requests = [
        Request(id="good", prompt=[{"role": "user", "content": "hello"}]),
        Request(id="bad", prompt=[{"role": "oracle", "content": "hello"}]),
    ]
    good, bad = run(folders, "none", requests)
    assert good.error is None
    assert "oracle" in bad.error


def test_command_line(tmp_path):
    from typer.testing import CliRunner

    from rewardsteer.cli.main import app
    from tests.fakes import save_tiny

    folder, output = save_tiny(tmp_path / "policy"), tmp_path / "out.jsonl"
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "a"}, {"prompt": "b", "prompt_ids": [999_999]}, {"prompt": "c"}]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["generate", "--model", str(folder), "--prompts", str(prompts), "--output",
             str(output), "--max-new-tokens", "3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code != 0
    assert "1 of 3 prompts got no answer" in result.output
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["error"] is None for line in lines] == [True, False, True]
    assert "999999" in lines[1]["error"]
    # Mended, it is tried again and nothing else is.
    rows[1]["prompt_ids"] = [5]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = CliRunner().invoke(app, [*words, "--resume"])
    assert again.exit_code == 0, again.output
    after = [json.loads(line) for line in output.read_text().splitlines()]
    assert after[:2] == [lines[0], lines[2]]
    assert (after[2]["id"], after[2]["error"]) == ("2", None)
    # What holds no answer is not scored as an empty one.
    output.write_text("".join(json.dumps(line) + "\n" for line in lines))
    scored = CliRunner().invoke(app, [
        "score", "--reward-model", str(folder), "--input", str(output), "--output",
        str(tmp_path / "scored.jsonl"),
    ])
    assert scored.exit_code != 0


class TextModel:
    """Notes how many texts each call scores; refuses one of them."""

    tokenizer, reads_tokens = None, False

    def __init__(self):
        self.calls = []

    def score(self, prompts, responses, *, batch_size, closed):
        self.calls.append((len(prompts), closed))
        if "bad" in responses:
            raise DataError("a bad text")
        return [float(len(text)) for text in responses]

    def preferences(self, prompts, responses, others, *, batch_size):
        self.calls.append((len(prompts), "pairs"))
        return [0.25] * len(prompts)


def test_questions_of_a_kind_share_a_call():
    def sample(text, reason=None):
        return SimpleNamespace(text=text, finish_reason=reason, length=1)

    def run(*questions):
        model = TextModel()
        found = Answers(model, batch_size=9, texts=True).of(
            [Ask(Encoded("r"), one, rival=rival) for one, rival in questions]
        )
        return model.calls, [getattr(one, "values", one) for one in found]

    whole = sample("whole", "stop")
    calls, values = run(
        (sample("a"), None), (whole, None), (sample("be"), None), (whole, whole), (whole, None)
    )
    assert calls == [(2, False), (2, True), (1, "pairs")]
    assert values == [[1.0], [5.0], [2.0], [0.25], [5.0]]
    calls, (first, error, last) = run(*((sample(text), None) for text in ("a", "bad", "c")))
    assert calls == [(3, False), *[(1, False)] * 3]
    assert (first, last) == ([1.0], [1.0])
    assert str(error) == "While judging a response to r: a bad text"
