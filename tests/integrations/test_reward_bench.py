"""The adapter for reward-bench's runners.

Its release on PyPI (0.1.4) does not import under transformers 5, and its newest source is not on
PyPI, so most tests run against a stand-in that asks of a model what the runners ask, in their
order (release 0.1.4 and the source of September 2026). The last test runs the real runner
wherever reward-bench can be imported.
"""

import json
import sys
import types

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from rewardsteer.errors import CheckpointError, ConfigError, DataError
from rewardsteer.integrations import reward_bench
from rewardsteer.models.kinds import load_scorer
from rewardsteer.records import Message

TALKS = [
    [("user", 'Say "hi", {name}.'), ("assistant", "hi\n")],
    [("user", "1+1"), ("assistant", "2"), ("user", "Sure?"), ("assistant", "Yes.")],
]


@pytest.fixture
def runner(monkeypatch):
    """A stand-in for the package; what its main saw ends up in ``seen``."""
    package, module = types.ModuleType("rewardbench"), types.ModuleType("rewardbench.rewardbench")
    package.REWARD_MODEL_CONFIG, package.seen = {}, {}

    def main():
        arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
        config = package.REWARD_MODEL_CONFIG[arguments["--model"]]
        assert not config["custom_dialogue"]
        tokenizer = AutoTokenizer.from_pretrained(
            arguments["--tokenizer"], trust_remote_code=False, revision=None)
        texts = [
            tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in talk], tokenize=False)
            for talk in TALKS
        ]
        tokenizer.padding_side = "left"
        assert not config["quantized"]
        model = config["model_builder"](
            arguments["--model"], device_map="auto", torch_dtype=torch.float32, revision=None,
            trust_remote_code=False)
        pipe = config["pipeline_builder"]("text-classification", model=model, tokenizer=tokenizer)
        assert pipe.tokenizer.pad_token_id is not None
        assert pipe.model.config.pad_token_id is not None
        assert isinstance(pipe.model, torch.nn.Module)
        rewards = pipe(
            texts, batch_size=2, truncation=False, padding=True, max_length=512,
            function_to_apply="none", return_token_type_ids=False)
        assert not isinstance(rewards[0], dict)
        package.seen["scores"] = rewards.float().cpu().numpy().tolist()

    module.main = main
    monkeypatch.setitem(sys.modules, "rewardbench", package)
    monkeypatch.setitem(sys.modules, "rewardbench.rewardbench", module)
    monkeypatch.setattr(sys, "argv", ["before"])
    return package


def expected(folder):
    prompts = [TALKS[0][0][1], [Message(role=r, content=c) for r, c in TALKS[1][:-1]]]
    return load_scorer(folder).score(prompts, [talk[-1][1] for talk in TALKS])


def test_scores_are_the_scorers(runner, reward_folder):
    reward_bench.run(["--model", str(reward_folder)])
    np.testing.assert_allclose(runner.seen["scores"], expected(reward_folder), atol=1e-5)


@pytest.mark.parametrize("sample", ["Q: 1+1", "[]", '[{"role": "user", "content": "x"}]',
                                    '[{"role": "user"}, {"role": "assistant"}]'])
def test_texts_that_are_no_conversation(reward_folder, sample):
    pipe = reward_bench.RewardBenchPipeline(load_scorer(reward_folder), None)
    with pytest.raises(DataError, match="Expected a conversation"):
        pipe([sample])


def test_bad_arguments(runner, reward_folder, tmp_path):
    with pytest.raises(ConfigError, match="--model FOLDER"):
        reward_bench.run(["--dataset", "x"])
    with pytest.raises(ConfigError, match=r"no tokenizer \(--tokenizer\)"):
        reward_bench.run(["--model", str(reward_folder), "--tokenizer", "x"])
    with pytest.raises(CheckpointError, match="there is none"):
        reward_bench.run(["--model", str(tmp_path / "nowhere")])


def test_without_reward_bench(monkeypatch, reward_folder):
    monkeypatch.setitem(sys.modules, "rewardbench", None)
    with pytest.raises(ConfigError, match="cannot be imported"):
        reward_bench.run(["--model", str(reward_folder)])


@pytest.mark.parametrize("second", [False, True], ids=["v1", "v2"])
def test_the_real_runner(second, reward_folder, tmp_path, monkeypatch):
    pytest.importorskip(
        "rewardbench", exc_type=ImportError,
        reason="reward-bench is not installed, or its release does not work with transformers 5",
    )
    monkeypatch.chdir(tmp_path)
    rows = [(f"What is {i}+1?", f"It is {i + 1}.", f"It is {i}") for i in range(4)]
    if second:
        extra = {"num_correct": 1, "num_rejected": 1, "total_completions": 2, "subset": "Math"}
        lines = [{"id": str(i), "prompt": p, "chosen": [c], "rejected": [r]} | extra
                 for i, (p, c, r) in enumerate(rows)]
    else:
        lines = [{"prompt": p} | {
            name: [{"role": "user", "content": p}, {"role": "assistant", "content": text}]
            for name, text in (("chosen", c), ("rejected", r))
        } for p, c, r in rows]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--model", str(reward_folder), "--dataset", str(data), "--torch_dtype", "float32"]
    scores = load_scorer(reward_folder)
    chosen = scores.score([p for p, *_ in rows], [c for _, c, _ in rows])
    rejected = scores.score([p for p, *_ in rows], [r for *_, r in rows])
    if second:
        given = []
        original = reward_bench.RewardBenchPipeline.__call__

        def recorded(self, samples, **options):
            given.extend((rewards := original(self, samples, **options)).tolist())
            return rewards

        monkeypatch.setattr(reward_bench.RewardBenchPipeline, "__call__", recorded)
        reward_bench.run(["v2", *options, "--do_not_save"])
        np.testing.assert_allclose(given[::2], chosen, atol=1e-4)
        np.testing.assert_allclose(given[1::2], rejected, atol=1e-4)
    else:
        reward_bench.run([*options, "--load_json", "--output_dir", str(tmp_path / "results")])
        outputs = [json.loads(line) for line in
                   (reward_folder.parent / f"{reward_folder.name}_outputs.jsonl").open()]
        np.testing.assert_allclose([o["scores_chosen"] for o in outputs], chosen, atol=1e-4)
        np.testing.assert_allclose([o["scores_rejected"] for o in outputs], rejected, atol=1e-4)
