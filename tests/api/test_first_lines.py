"""The lines that a newcomer types first, with tiny models in place of names from the hub."""

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rewardsteer import RewardModel, Steerer, evaluate, train

PAIRS = [
    {"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": str(a + b + 1)}
    for a in range(1, 5) for b in range(1, 4)
]


@pytest.fixture(scope="module")
def rm(folders):
    return RewardModel.from_pretrained(folders / "farma", device="cpu")


def test_scores(rm):
    prompts, completions = ["1+1=", "2+2="], ["2", "4"]
    messages = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]
    assert isinstance(rm.score("1+1=", "2"), float)
    assert rm.score(prompts, completions).shape == (2,)
    assert isinstance(rm.score(messages), float)
    assert rm.score([messages, messages]).shape == (2,)
    ranked = rm.rank("2+2=", ["5", "4"])
    assert [one.index for one in ranked] in ([0, 1], [1, 0])
    assert ranked[0].score >= ranked[1].score
    found = rm.token_scores("1+1=", "20")
    assert len(found.tokens) == len(found.rewards) == 2
    assert found.similarities is None


def test_steps(rm):
    steps = ["1+1=2", "2+2=4"]
    values = rm.step_scores("1+1+2=", steps)
    assert values.shape == (2,)
    for aggregate, expected in {
        "min": values.min(), "last": values[-1], "product": values.prod(), "mean": values.mean(),
    }.items():
        assert rm.step_scores("1+1+2=", steps, aggregate=aggregate) == pytest.approx(expected)


def test_transformers_own_generate(rm, folders):
    policy = AutoModelForCausalLM.from_pretrained(folders / "policy")
    tokenizer = AutoTokenizer.from_pretrained(folders / "policy")
    inputs = tokenizer("1+1=", return_tensors="pt")
    ids = policy.generate(
        **inputs, logits_processor=[rm.logits_processor(weight=1.0)], max_new_tokens=3,
        do_sample=False,
    )
    assert ids.shape[1] > inputs["input_ids"].shape[1]


def test_trl(rm):
    reward_function = rm.reward_function()
    rewards = reward_function(prompts=["1+1=", "2+2="], completions=["2", "4"])
    np.testing.assert_allclose(rewards, rm.score(["1+1=", "2+2="], ["2", "4"]), atol=1e-5)


def test_steering(rm, folders):
    prompts = ["1+1=", "2+2="]
    steerer = Steerer(folders / "policy", rm, method="best_of_n", n=2, device="cpu")
    answers = steerer.generate(prompts, max_new_tokens=4, temperature=0.7, top_p=0.95)
    assert answers[0].text is not None
    assert answers[0].cost.lm_tokens > 0
    assert steerer.chat([{"role": "user", "content": "1+1="}], max_new_tokens=2).finish_reason
    assert "".join(steerer.stream("1+1=", max_new_tokens=2)) is not None
    table = steerer.compare(
        prompts, ["none", "best_of_n", "farma"], judge=folders / "bt", budget="tokens",
        budget_per_prompt=64,
    )
    assert set(table.rows) == {"none", "best_of_n", "farma"}


def test_training_and_a_benchmark(folders, tmp_path):
    rm = train(
        "farma", folders / "base", PAIRS, output_dir=tmp_path / "farma", rounds=1,
        optimiser={"max_steps": 1, "precision": "fp32"},
    )
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"id": "0", "prompt": "1+1=", "chosen": ["2"], "rejected": ["3", "4", "5"],'
        ' "subset": "Math"}\n'
    )
    table = evaluate(rm, "rewardbench2", path=rows)
    assert table.to_markdown().startswith("| ")
    assert len(table.to_pandas()) == 1
