"""Fields of TrainingArguments, callbacks, checkpoints and resumes as users of TRL know them."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import SchedulerType

from rewardsteer.configuration import load_config
from rewardsteer.data.store import load_set
from rewardsteer.errors import CheckpointError, ConfigError, DataError
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.scalar import build_mlp, initialise_linear
from rewardsteer.training import fit as fit_module
from rewardsteer.training.arguments import training_arguments
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.policy import train_policy
from rewardsteer.training.policy_config import PolicyConfig
from rewardsteer.training.rows import draw_prefixes, drop_too_long
from rewardsteer.training.run import train
from rewardsteer.training.shared_config import SCHEDULERS
from rewardsteer.training.trainer import RewardTrainer
from rewardsteer.training.trainer_settings import NAMED_HERE, OWNED
from tests.fakes import tiny_causal_lm
from tests.training.engines import log_lines, make_world, settings

BARE = {
    "base_model": "x", "prepared": "y", "phases": [{"objective": [{"name": "bradley_terry"}]}],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def short(world, **changes):
    return TrainConfig.model_validate(settings(world, "bradley_terry", 1, **changes))


class Arguments(TrainerCallback):
    """Keeps the arguments that a phase ran with."""

    seen: TrainingArguments

    def on_train_begin(self, args, state, control, **_):
        type(self).seen = args


class Stop(TrainerCallback):
    """Ends a phase after so many updates."""

    def __init__(self, after=1):
        self.after = after

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= self.after


@pytest.mark.parametrize(("setting", "said"), [
    ("max_steps=6", "Did you mean 'optimiser.max_steps'"),
    ("lora.r=16", "Did you mean 'lora.rank'"),
    ("optimizer.learning_rate=1", "Did you mean 'optimiser'"),
    ("optimiser.accumulation=4", "now called 'optimiser.gradient_accumulation_steps'"),
    ("optimiser.order=length", "now called 'optimiser.train_sampling_strategy'"),
    ("log.echo=false", "now called 'log.print_logs'"),
    ("keep=best", "now called 'select'"),
    ("optim=adafactor", "Did you mean 'trainer.optim'"),
    ("train_batch_size=64", "Did you mean 'optimiser.train_batch_size'"),
    ("optimiser.lr_scheduler_type=cosnie", "Did you mean 'cosine'"),
    ("optimiser.learning_rate=-1", "expected more than 0"),
    ("optimiser.learning_rate=.inf", "finite"),
    ("optimiser.betas=[2, .9]", "expected less than 1"),
    ("optimiser.max_steps=-7", "or -1 to count epochs"),
    ("optimiser.per_device_train_batch_size=0", "expected at least 1"),
    ("optimiser.weight_decay=-0.1", "expected at least 0"),
    ("optimiser.warmup_steps=1.5", "share below 1"),
    ("lora.dropout=1", "expected less than 1"),
    ("trainer.optm=adafactor", "Did you mean 'optim'"),
    ("trainer.learning_rate=1e-5", "is called optimiser.learning_rate here"),
    ("trainer.remove_unused_columns=true", "cannot be set: the collator"),
    ("trainer.label_names=[labels]", "cannot be set"),
    ("trainer.save_total_limit=three", "expected a whole number, got 'three'"),
    ("trainer.push_to_hub=true", "rewardsteer push"),
])
def test_a_wrong_setting_is_named_before_any_work(setting, said):
    with pytest.raises(ConfigError, match="(?s)" + said.replace(".", r"\.")):
        load_config(TrainConfig, BARE, [setting])


def test_words_that_yaml_reads_as_false_are_words_again():
    config = load_config(TrainConfig, BARE, ["packing=off", "trainer.save_strategy=no"])
    assert (config.packing, config.trainer["save_strategy"]) == ("off", "no")


@pytest.mark.parametrize("field", ["save_steps", "eval_steps"])
def test_minus_one_means_never_as_in_published_code(field):
    config = load_config(TrainConfig, BARE, [f"log.{field}=-1"])
    assert getattr(config.log, field) == 0


def test_every_field_has_one_place():
    known = set(TrainingArguments.__dataclass_fields__)
    assert not NAMED_HERE.keys() & OWNED.keys()
    # Names of other versions may stand there, but what is renamed leads to a setting that exists.
    assert len(known & (NAMED_HERE.keys() | OWNED.keys())) > 50
    for place in NAMED_HERE.values():
        section, _, name = place.rpartition(".")
        kind = TrainConfig.model_fields[section].annotation if section else TrainConfig
        assert name in kind.model_fields, place
    assert set(SCHEDULERS) <= {one.value for one in SchedulerType}


def test_fields_reach_the_trainer(world, tmp_path):
    config = short(
        world, trainer={
            "optim": "adafactor", "lr_scheduler_kwargs": {"min_lr": 1e-5}, "run_name": "mine",
            "save_total_limit": 3, "logging_first_step": True, "dataloader_num_workers": 1,
            "neftune_noise_alpha": 5.0, "adam_epsilon": 1e-6,
        },
        optimiser={"lr_scheduler_type": "cosine_with_min_lr"},
        callbacks=["tests.training.test_trainer_settings:Arguments"],
        log={"logging_steps": 50, "save_steps": 1},
    )
    train(config, tmp_path / "run")
    seen = Arguments.seen
    assert (seen.optim, seen.run_name, seen.save_total_limit) == ("adafactor", "mine", 3)
    assert seen.lr_scheduler_kwargs == {"min_lr": 1e-5}
    assert seen.adam_epsilon == 1e-6
    steps = [line["step"] for line in log_lines(tmp_path / "run") if "loss" in line]
    assert steps[0] == 1


def test_what_transformers_refuses_is_a_sentence(world, tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)refuses.*adamw_torchh"):
        train(short(world, trainer={"optim": "adamw_torchh"}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"needs log\.save_steps"):
        train(short(world, trainer={"save_strategy": "steps"}), tmp_path / "run")
    with pytest.raises(ConfigError, match="clearml, which is not installed"):
        train(short(world, log={"report_to": ["clearml"]}), tmp_path / "run")
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        train(short(world, log={"report_to": "wandv"}), tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot be imported"):
        train(short(world, callbacks=["transformers:EarlyStoping"]), tmp_path / "run")
    with pytest.raises(ConfigError, match="refuses its options"):
        train(
            short(world, callbacks=[{"name": "transformers:EarlyStoppingCallback",
                                     "options": {"patience": 1}}]),
            tmp_path / "run",
        )
    with pytest.raises(ConfigError, match=(
        r"8 × 1 × 1 = 8; set optimiser\.gradient_accumulation_steps=4"
    )):
        train(short(world, optimiser={"train_batch_size": 32}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_early_stopping_ends_a_phase(world, tmp_path):
    config = short(world, callbacks=[{
        "name": "transformers:EarlyStoppingCallback",
        "options": {"early_stopping_patience": 1, "early_stopping_threshold": 2.0},
    }], optimiser={"num_train_epochs": 6})
    train(config, tmp_path / "run")
    evaluated = [line for line in log_lines(tmp_path / "run") if "eval_accuracy" in line]
    # The first has nothing to be compared with; the second is no better by 2.
    assert len(evaluated) == 2


def test_early_stopping_without_evaluations_is_refused(world, tmp_path):
    stop, none = "transformers:EarlyStoppingCallback", {"eval_strategy": "no"}
    config = short(world, trainer=none, base_model="missing")
    with pytest.raises(ConfigError, match="EarlyStoppingCallback stops by evaluations, and this"):
        train(config, tmp_path / "run", callbacks=[EarlyStoppingCallback])
    with pytest.raises(ConfigError, match="EarlyStoppingCallback stops by evaluations, and this"):
        train(short(world, trainer=none, callbacks=[stop]), tmp_path / "run")
    policy = PolicyConfig.model_validate({"base_model": "missing", "callbacks": stop})
    with pytest.raises(ConfigError, match="EarlyStoppingCallback stops by evaluations, and this"):
        train_policy(policy, None, [], tmp_path / "policy")


def test_a_figure_that_no_evaluation_has_is_refused_before_anything_is_read(world, tmp_path):
    config = short(
        world, trainer={"metric_for_best_model": "eval_acuracy"}, base_model="missing",
    )
    with pytest.raises(ConfigError, match=(
        r"no figure .* mean 'accuracy'\? Known: accuracy, loss, reward_gap\.$"
    )):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("figure", "higher"), [
    ("accuracy", True), ("loss", False), ("eval_brier", False), ("constraint_violation", False),
])
def test_it_is_known_of_each_figure_which_direction_is_better(tmp_path, figure, higher):
    config = TrainConfig.model_validate(BARE)
    arguments = training_arguments(
        tmp_path, config.optimiser, config.log, 0, evaluate=True,
        trainer={"metric_for_best_model": figure, "save_strategy": "best"},
    )
    assert arguments.greater_is_better is higher


def test_objects_and_classes_are_callbacks(world, tmp_path):
    train(short(world), tmp_path / "run", callbacks=[Stop(2), EarlyStoppingCallback])
    steps = [line["step"] for line in log_lines(tmp_path / "run") if "loss" in line]
    assert steps == [1, 2]


def test_checkpoints_at_the_ends_of_epochs_and_as_many_as_asked(world, tmp_path, monkeypatch):
    saved = []
    real = RewardTrainer._save_checkpoint

    def note(self, model, trial):
        real(self, model, trial)
        folder = tmp_path / "run" / "phases" / "01-bradley_terry"
        saved.append(sorted(int(one.name[11:]) for one in folder.glob("checkpoint-*")))

    monkeypatch.setattr(RewardTrainer, "_save_checkpoint", note)
    train(
        short(world, trainer={"save_strategy": "epoch", "save_total_limit": 3},
              optimiser={"num_train_epochs": 5}),
        tmp_path / "run",
    )
    # 25 rows by 8 are 4 updates an epoch; the last epoch's weights are the phase's.
    assert saved == [[4], [4, 8], [4, 8, 12], [8, 12, 16]]


def interrupt(monkeypatch, step):
    real = fit_module.RewardTrainer.compute_loss

    def failing(self, *args, **options):
        if self.model.training and self.state.global_step == step:
            raise KeyboardInterrupt
        return real(self, *args, **options)

    monkeypatch.setattr(fit_module.RewardTrainer, "compute_loss", failing)


def model_of(out):
    return load_file(out / "model" / "model.safetensors")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_an_adapter_checkpoint_holds_what_is_trained_and_resumes_from_any(
    world, tmp_path, monkeypatch
):
    changes = {"lora": {"rank": 2}, "log": {"save_steps": 1},
               "trainer": {"save_total_limit": None}, "optimiser": {"num_train_epochs": 2}}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(short(world, **changes), whole)
    with monkeypatch.context() as patched:
        interrupt(patched, 5)
        with pytest.raises(KeyboardInterrupt):
            train(short(world, **changes), cut)
    phase = cut / "phases" / "01-bradley_terry"
    held = load_file(phase / "checkpoint-5" / "model.safetensors")
    assert held
    assert all("lora_" in name or "modules_to_save" in name for name in held)
    with pytest.raises(CheckpointError, match="there: checkpoint-1, checkpoint-2"):
        train(short(world, **changes), cut, resume_from_checkpoint=phase / "checkpoint-9")
    began = []
    real = RewardTrainer.restore_progress
    monkeypatch.setattr(RewardTrainer, "restore_progress", lambda self: (
        began.append(self.state.global_step), real(self)
    ))
    train(short(world, **changes), cut, resume_from_checkpoint=phase / "checkpoint-3")
    assert began == [3]
    assert_equal(model_of(whole), model_of(cut))
    assert log_lines(whole) == log_lines(cut)


@pytest.mark.slow
def test_resume_compares_only_what_decides_the_numbers(world, tmp_path, monkeypatch):
    first = short(world, log={"save_steps": 2})
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        interrupt(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train(first, out)
    record = json.loads((out / "run.json").read_text())
    # An older version did not know these.
    del record["config"]["trainer"], record["config"]["callbacks"]
    (out / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"optimiser\.learning_rate, seed differ"):
        train(short(world, seed=1, optimiser={"learning_rate": 1e-3}), out, resume=True)
    more = short(
        world, rounds=2, optimiser={"num_train_epochs": 2},
        log={"save_steps": 1, "logging_steps": 3},
        trainer={"run_name": "again", "save_total_limit": 1},
    )
    train(more, out, resume=True)
    state = json.loads((out / "state.json").read_text())
    assert [one["folder"] for one in state] == [
        "phases/01-bradley_terry", "phases/02-bradley_terry"
    ]
    assert max(line["step"] for line in log_lines(out) if line["phase"][:2] == "01") == 8
    # Finished; more rounds go on, more epochs have no phase left to be of.
    with pytest.raises(ConfigError, match="are finished"):
        train(more.model_copy(update={"optimiser": first.optimiser}), out, resume=True)
    before = model_of(out)
    train(more.model_copy(update={"rounds": 3}), out, resume=True)
    assert len(json.loads((out / "state.json").read_text())) == 3
    assert any(not torch.equal(value, before[name]) for name, value in model_of(out).items())


def test_rows_longer_than_the_positions_are_left_out_and_counted(world, tmp_path, caplog):
    rows = load_set(world / "data", "train", "full")
    longest = max(
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for row in rows
    )
    kept, dropped = drop_too_long(rows, longest - 1)
    assert dropped > 0
    assert len(kept) + dropped == len(rows)
    with pytest.raises(DataError, match="longer than the 2 positions"):
        drop_too_long(rows, 2)
    base = tmp_path / "base"
    model = tiny_causal_lm(vocab_size=19)
    model.config.max_position_embeddings = longest - 1
    model.save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((world / "base" / name).read_bytes())
    config = settings(world, "bradley_terry", 1) | {"base_model": str(base)}
    train(TrainConfig.model_validate(config), tmp_path / "run")
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state[0]["rows_too_long"] == dropped
    assert f"{dropped} of {len(rows)} training rows are longer" in caplog.text
    model.config.max_position_embeddings = 2
    model.save_pretrained(base)
    with pytest.raises(DataError, match="longer than the 2 positions"):
        train(TrainConfig.model_validate(config), tmp_path / "short")
    assert not (tmp_path / "short").exists()


def test_the_log_is_valid_json(tmp_path):
    log = fit_module.LogLines(tmp_path / "metrics.jsonl", "p")

    class State:
        is_world_process_zero, global_step = True, 1

    log.on_log(None, State, None, logs={"grad_norm": float("nan"), "loss": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "phase": "p", "step": 1, "grad_norm": None, "loss": 1.0,
    }




def test_prefix_rows_are_drawn_as_rows_of_one_prefix(world, tmp_path):
    partial = load_set(world / "data", "train", "partial").shuffle(seed=3).select(range(20))
    listed = {(row["id"], length) for row in partial for length in row["pair_lengths"]}
    drawn = draw_prefixes(partial, "pair_lengths", 15, seed=1)
    pairs = [(row["id"], *row["pair_lengths"]) for row in drawn]
    assert len(pairs) == len(set(pairs)) == 15
    assert set(pairs) <= listed
    ids = {row["id"]: row["chosen_ids"] for row in partial}
    assert all(row["chosen_ids"] == ids[row["id"]] for row in drawn)
    assert [row["id"] for row in draw_prefixes(partial, "pair_lengths", 15, seed=1)] == [
        one[0] for one in pairs
    ]
    everything = draw_prefixes(partial, "pair_lengths", 10_000, seed=1)
    assert {(row["id"], *row["pair_lengths"]) for row in everything} == listed
    config = settings(world, "partial", 1)
    config["phases"] = [{"objective": [{"name": "partial"}], "rows": 12, "prefix_rows": 16}]
    train(TrainConfig.model_validate(config), tmp_path / "run")
    assert max(line["step"] for line in log_lines(tmp_path / "run") if "loss" in line) == 2
    config["phases"] = [{"objective": [{"name": "bradley_terry"}], "prefix_rows": 16}]
    with pytest.raises(ConfigError, match="takes rows, not prefix_rows"):
        train(TrainConfig.model_validate(config), tmp_path / "other")


def test_the_start_of_a_scalar_head_is_a_setting():
    torch.manual_seed(0)
    for init, expected in (("normal", 4097**-0.5), ("openrlhf", 1 / 4097)):
        layer = torch.nn.Linear(4096, 1, bias=False)
        initialise_linear(layer, init)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
    stages = build_mlp(64, "openrlhf")
    assert stages[0].weight.std().item() == pytest.approx(1 / 65, rel=0.1)
    assert HeadConfig().init == "normal"
    # As cards of scalar heads used to be written.
    assert HeadConfig.model_validate({"kind": "scalar", "init": "lm_head"}).init == "normal"
    with pytest.raises(ValueError, match="vocabulary head starts as lm_head or zeros"):
        HeadConfig(kind="vocabulary", init="normal")
