"""Every decoding method on a real chat policy: deterministic, the same over HTTP, in a report."""

import pytest

from tests.real.conftest import PROMPTS, read_lines, rewardsteer, write_lines
from tests.serving.running import Process, client

NONE = ("none", None, [])
GUIDED = [
    ("farma", ("farma", "whole"), ["--weight", 1]),
    ("genarm", ("genarm", "lora"), ["--weight", 1]),
    ("args", ("bt", "whole"), ["--weight", 1, "--top-k", 3]),
    ("pargs", ("pargs", "lora"), ["--weight", 1, "--top-k", 3]),
    ("cd", ("pargs", "lora"), ["--weight", 1, "--top-k", 3]),
]
AROUND = [
    ("best_of_n", ("bt", "whole"), ["--n", 2]),
    ("cards", ("bt", "whole"), ["--set", "reward_target=0", "--set", "max_rejections=1"]),
    ("speculative_rejection", ("bt", "whole"), ["--n", 2, "--set", "decision_tokens=4"]),
    ("beam", ("goal", "whole"), ["--set", "step_value=goal", "--beam", 2, "--step-tokens", 4,
                                 "--max-steps", 2]),
    ("goal_filter", ("goal", "whole"), ["--n", 2, "--set", "drop_threshold=-1"]),
]


@pytest.fixture(scope="module")
def answer(root, smollm2, trained):
    """Answers of a method as the command writes them."""

    def run(method, model, options, name, batch_size=4):
        output = root / f"{method}-{name}.jsonl"
        reward = ["--reward-model", trained(*model)] if model else []
        rewardsteer(
            "generate", "--model", smollm2, *reward, "--method", method, "--prompts",
            root / "prompts.jsonl", "--output", output, "--max-new-tokens", 8, "--dtype",
            "float32", "--reward-dtype", "float32", "--batch-size", batch_size, *options,
        )
        return read_lines(output)

    return run


@pytest.fixture(scope="module", autouse=True)
def goal_state(root, trained):
    """Of the goal-conditioned model, written beside its weights."""
    rewardsteer(
        "goal-state", "--reward-model", trained("goal", "whole"), "--data", root / "data",
        "--overwrite",
    )


@pytest.mark.parametrize(("method", "model", "options"), [NONE, *GUIDED, *AROUND])
def test_methods_answer_and_say_what_it_cost(answer, method, model, options):
    rows = answer(method, model, options, "one")
    assert [row["id"] for row in rows] == [str(number) for number in range(len(PROMPTS))]
    for row in rows:
        assert row["method"] == method
        assert 1 <= len(row["token_ids"]) <= 8
        # The model's own chat format, once.
        assert row["prompt"].count("<|im_start|>user\n") == 1
        assert row["prompt"].endswith("<|im_start|>assistant\n")
        assert (row["cost"]["rm_calls"] > 0) == (method != "none")


@pytest.mark.parametrize(("method", "model", "options"), [GUIDED[0], GUIDED[2]])
def test_guided_text_is_deterministic_and_batches_do_not_matter(answer, method, model, options):
    together = answer(method, model, options, "again")
    alone = answer(method, model, options, "alone", batch_size=1)
    assert [row["token_ids"] for row in together] == [row["token_ids"] for row in alone]


def test_a_weight_of_zero_is_the_policy(answer):
    plain = answer("none", None, ["--greedy"], "greedy")
    zero = answer("farma", ("farma", "whole"), ["--greedy", "--weight", 0], "zero")
    assert [row["completion"] for row in plain] == [row["completion"] for row in zero]
    # An instruct model that is spoken to in its own format knows this.
    assert "Paris" in plain[0]["completion"]


def test_the_server_answers_alike(root, smollm2, trained, answer, warm):
    options = ["--greedy", "--weight", 1]
    expected = answer("farma", ("farma", "whole"), options, "offline")
    server = Process(
        "serve", "--model", smollm2, "--reward-model", trained("farma", "whole"), "--port", 0,
        "--dtype", "float32", "--reward-dtype", "float32", warm=warm,
    )
    try:
        with client(server.address) as http:
            for row, text in zip(expected, PROMPTS, strict=True):
                reply = http.post("/v1/chat/completions", json={
                    "model": smollm2.name, "max_tokens": 8, "temperature": 0, "weight": 1,
                    "messages": [{"role": "user", "content": text}],
                })
                assert reply.status_code == 200, reply.text
                content = reply.json()["choices"][0]["message"]["content"]
                assert content == row["completion"]
    finally:
        server.end()


def test_methods_are_compared_in_a_report(root, smollm2, trained):
    few = write_lines(root / "few.jsonl", read_lines(root / "prompts.jsonl")[:2])
    methods = root / "methods.yaml"
    methods.write_text(
        "policy: {method: none, max_new_tokens: 6}\n"
        f"guided: {{method: farma, max_new_tokens: 6, reward_model: {trained('farma', 'whole')}}}\n"
    )
    rewardsteer(
        "evaluate", "generation", "--model", smollm2, "--prompts", few, "--methods", methods,
        "--judge", trained("bt", "whole"), "--out", root / "evaluation",
    )
    rewardsteer("report", root / "evaluation", "--out", root / "report.html")
    page = (root / "report.html").read_text()
    assert "policy" in page
    assert "guided" in page
