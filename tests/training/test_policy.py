"""Fine-tuning of a policy: tokenizers without a padding token, types, the type that is saved."""

import json
import shutil

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.configuration import load_config
from rewardsteer.errors import CheckpointError, ConfigError, DataError, MismatchError
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training.policy import build_policy, train_policy
from rewardsteer.training.policy_config import PolicyConfig
from tests.chat import save_classifier
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny, tiny_causal_lm
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


def adapter_of(base, folder):
    """An adapter whose weights change the model."""
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return folder, model.merge_and_unload()


def test_an_adapter_is_merged_into_its_base_and_trained_whole(tmp_path):
    tiny_causal_lm(vocab_size=79).bfloat16().save_pretrained(tmp_path / "base")
    folder, merged = adapter_of(tmp_path / "base", tmp_path / "sft")
    config = load_config(PolicyConfig, SMALL, [f"base_model={folder}"])
    model = build_policy(config, character_tokenizer())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.allclose(model.state_dict()[name], merged.state_dict()[name].float(), atol=0.02)
    assert all(one.requires_grad for one in model.parameters())
    trained = train_policy(
        config, character_tokenizer(), Dataset.from_list(ROWS), tmp_path / "out"
    )
    # In the type that the adapter's base was saved in.
    assert AutoModelForCausalLM.from_pretrained(trained).dtype == torch.bfloat16


def no_language_model(folder, base, kind):
    """A folder of the named kind that a policy cannot start from."""
    if kind in ("scalar", "vocabulary"):
        head = HeadConfig(kind=kind)
        RewardModel.from_base(base, head).save_pretrained(
            folder, character_tokenizer(), CheckpointCard(head=head)
        )
    elif kind == "classifier":
        save_classifier(folder, "chatml")
    else:
        shutil.copytree(base, folder)
        if kind == "damaged":
            (folder / "model.safetensors").write_bytes(b"no weights")
        if kind == "other tokens":
            character_tokenizer(characters="zyxw").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "error", "said"), [
    ("scalar", CheckpointError, "is a reward model, and a causal language model was expected"),
    ("vocabulary", CheckpointError, "is a reward model, and a causal language model was expected"),
    ("classifier", CheckpointError, "lack lm_head.weight, which would be drawn at random"),
    ("damaged", CheckpointError, "cannot be loaded"),
    ("other tokens", MismatchError, "'z' in that of the base model .*; give the base model's"),
])
def test_what_is_no_language_model_is_refused_before_the_folder_is_made(
    tmp_path, kind, error, said
):
    place = no_language_model(tmp_path / "start", save_tiny(tmp_path / "base"), kind)
    config = load_config(PolicyConfig, SMALL, [f"base_model={place}"])
    tokenizer = load_tokenizer(place) if kind == "classifier" else character_tokenizer()
    with pytest.raises(error, match=said):
        train_policy(config, tokenizer, Dataset.from_list(ROWS), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_that_do_not_fit_are_left_out_or_refused(tmp_path, caplog):
    base = save_tiny(tmp_path / "base", "gpt2")
    config = load_config(PolicyConfig, SMALL, [f"base_model={base}"])
    long = {"prompt_ids": [5] * 500, "label_ids": [7] * 20}
    rows = Dataset.from_list([*ROWS, long])
    assert train_policy(config, character_tokenizer(), rows, tmp_path / "out").exists()
    assert "1 of 3 training rows are longer than the 512 positions" in caplog.text
    for rows, said in (([long], "All 1 training rows are longer"), ([], "needs rows")):
        with pytest.raises(DataError, match=said):
            train_policy(config, character_tokenizer(), Dataset.from_list(rows), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_batch_sizes_of_all_processes_are_checked(tmp_path):
    config = load_config(PolicyConfig, SMALL, ["optimiser.train_batch_size=16"])
    with pytest.raises(ConfigError, match="gradient_accumulation_steps=16"):
        train_policy(config, character_tokenizer(), Dataset.from_list(ROWS), tmp_path / "out")


def test_ids_that_the_base_model_lacks_are_refused_and_added_tokens_are_not(tmp_path):
    """Such an id may lie beyond the rows of its embedding."""
    base = tmp_path / "base"
    tiny_causal_lm(vocab_size=79).save_pretrained(base)
    character_tokenizer(characters=CHARACTERS[:-1]).save_pretrained(base)
    config = load_config(PolicyConfig, SMALL, [f"base_model={base}"])
    with pytest.raises(MismatchError, match=r"in the tokenizer given and absent in that of"):
        build_policy(config, character_tokenizer())
    own = character_tokenizer(characters=CHARACTERS[:-1])
    own.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    build_policy(config, own)


def test_the_command_refuses_data_of_another_tokenizer(tmp_path):
    save_tiny(tmp_path / "base")
    # As many tokens under other ids.
    letters = "".join(reversed(CHARACTERS))
    character_tokenizer(characters=letters).save_pretrained(tmp_path / "other")
    rows = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(4)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = CliRunner().invoke
    made = run(app, ["data", "prepare", "pairs", "--path", str(tmp_path / "p.jsonl"), "--tokenizer",
                     str(tmp_path / "base"), "--out", str(tmp_path / "data")])
    assert made.exit_code == 0, made.output
    arguments = ["train-policy", "--data", str(tmp_path / "data"), "--tokenizer",
                 str(tmp_path / "other"), "--out", str(tmp_path / "out")]
    done = run(app, arguments)
    assert done.exit_code == 2
    assert "tokens or their ids are others" in " ".join(done.stderr.split())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    assert "--resume" not in run(app, arguments).stderr


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
