"""Fine-tuning of a policy: tokenizers without a padding token, types, the type that is saved."""

import json

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.configuration import load_config
from rewardsteer.errors import ConfigError
from rewardsteer.training.policy import train_policy
from rewardsteer.training.policy_config import PolicyConfig
from tests.fakes import character_tokenizer, tiny_causal_lm
from tests.training.engines import launch_module, make_world


def test_a_narrow_base_without_padding_token(tmp_path):
    tokenizer = character_tokenizer()
    model = tiny_causal_lm(vocab_size=len(tokenizer)).bfloat16()
    model.save_pretrained(tmp_path / "base")
    tokenizer.pad_token = None
    rows = Dataset.from_list([
        {"prompt_ids": [5, 6], "label_ids": [7, 8, 9]}, {"prompt_ids": [5], "label_ids": [7]},
    ])
    config = PolicyConfig.model_validate({
        "base_model": str(tmp_path / "base"), "optimiser": {"learning_rate": 5e-6, "max_steps": 2},
        "log": {"progress": False, "print_logs": False},
    })
    assert config.dtype == "float32"
    folder = train_policy(config, tokenizer, rows, tmp_path / "out")
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    weights = load_file(folder / "model.safetensors")
    assert {one.dtype for one in weights.values()} == {torch.bfloat16}
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16


ROWS = [{"prompt_ids": [5, 6], "label_ids": [7, 8, 9]}, {"prompt_ids": [5], "label_ids": [7]}]
SMALL = {
    "architecture": {"options": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }},
    "optimiser": {"max_steps": 2, "per_device_train_batch_size": 1},
    "log": {"progress": False, "print_logs": False, "logging_steps": 50, "save_steps": 1},
}


class Seen(TrainerCallback):
    """Keeps what it saw."""

    arguments, steps, mark = None, 0, ""

    def __init__(self, mark=""):
        type(self).mark, type(self).steps = mark, 0

    def on_train_begin(self, args, state, control, **_):
        type(self).arguments = args

    def on_step_end(self, args, state, control, **_):
        type(self).steps += 1


def test_trainer_fields_and_callbacks_are_those_of_reward_models(tmp_path):
    config = load_config(PolicyConfig, SMALL, [
        "trainer.optim=adafactor", "trainer.run_name=mine", "trainer.save_total_limit=1",
        "trainer.logging_first_step=true",
        "callbacks={name: 'tests.training.test_policy:Seen', options: {mark: x}}",
    ])
    train_policy(config, character_tokenizer(), Dataset.from_list(ROWS), tmp_path / "out")
    assert (Seen.mark, Seen.steps) == ("x", 2)
    assert (Seen.arguments.optim, Seen.arguments.run_name) == ("adafactor", "mine")
    assert [one.name for one in (tmp_path / "out" / "checkpoints").iterdir()] == ["checkpoint-2"]
    first = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0]
    assert '"step": 1' in first


@pytest.mark.parametrize(("setting", "said"), [
    ("trainer.optm=adafactor", "Did you mean 'optim'"),
    ("trainer.learning_rate=1e-5", "is called optimiser.learning_rate here"),
    ("trainer.load_best_model_at_end=true", "is about evaluation"),
    ("optim=adafactor", "Did you mean 'trainer.optim'"),
    ("lr=1", "Did you mean 'optimiser.learning_rate'"),
])
def test_a_wrong_setting_is_named(setting, said):
    with pytest.raises(ConfigError, match=said):
        load_config(PolicyConfig, {}, [setting])


@pytest.mark.parametrize(("settings", "said"), [
    (["trainer.optim=adamw_torchh"], "refuses the training settings.*adamw_torchh"),
    (["callbacks=no.such:Thing"], "cannot be imported"),
    (["log.report_to=clearml"], "clearml, which is not installed"),
    (["trainer.save_strategy=steps", "log.save_steps=0"], r"needs log\.save_steps"),
])
def test_what_is_wrong_is_refused_before_the_folder_is_made(settings, said, tmp_path):
    config = load_config(PolicyConfig, SMALL, settings)
    with pytest.raises(ConfigError, match="(?s)" + said):
        train_policy(config, character_tokenizer(), Dataset.from_list(ROWS), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_on_two_processes_trains_what_it_trains_on_one(tmp_path):
    world = make_world(tmp_path)

    def arguments(out, rows):
        return [
            "rewardsteer", "train-policy", "--data", str(world / "data"), "--tokenizer",
            str(world / "base"), "--out", str(tmp_path / out), f"base_model={world / 'base'}",
            "optimiser.max_steps=3", "optimiser.learning_rate=1e-3",
            f"optimiser.per_device_train_batch_size={rows}", "log.logging_steps=1",
        ]

    launch_module("ddp", arguments("two", 2))
    done = CliRunner().invoke(app, arguments("one", 4)[1:])
    assert done.exit_code == 0, done.output
    one, two = (load_file(tmp_path / out / "model" / "model.safetensors") for out in ("one", "two"))
    start = load_file(world / "base" / "model.safetensors")
    assert max((one[name] - start[name]).abs().max().item() for name in one) > 1e-3
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    # The log is written once.
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
