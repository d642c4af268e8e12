"""Whole training runs on tiny models: phases, resume, NaN, refusals, adapters."""

import json
import shutil

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.data.sources.arithmetic import build_tokenizer
from rewardsteer.data.store import load_manifest
from rewardsteer.errors import (
    CheckpointError,
    ConfigError,
    MismatchError,
    NonFiniteError,
    OutputError,
)
from rewardsteer.models.checkpoint import load_tokenizer, read_card
from rewardsteer.models.compatibility import trained_with
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training import fit as fit_module
from rewardsteer.training import run as run_module
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.loading import build
from rewardsteer.training.run import train
from tests.fakes import save_tiny, tiny_causal_lm
from tests.training.engines import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny base model and prepared arithmetic pairs."""
    return make_world(tmp_path_factory.mktemp("world"))


def settings(world, **changes):
    values = {
        "base_model": str(world / "base"),
        "prepared": str(world / "data"),
        "phases": [{"objective": [{"name": "bradley_terry"}], "rows": 16}],
        "optimiser": {"learning_rate": 1e-3, "per_device_train_batch_size": 4},
        "log": {"progress": False, "logging_steps": 1, "print_logs": False},
    }
    return TrainConfig.model_validate(values | changes)


FARMA = {
    "head": {"kind": "vocabulary"},
    "phases": [
        {"objective": [{"name": "bradley_terry"}], "rows": 16},
        {"objective": [{"name": "max_constraint"}], "rows": 8},
    ],
    "rounds": 2,
    "last_phase": "bradley_terry",
}


def weights(folder):
    return RewardModel.from_pretrained(folder).state_dict()


def assert_equal_weights(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_alternation_runs_the_plan_and_ends_after_bradley_terry(world, tmp_path):
    model = train(settings(world, **FARMA), tmp_path / "run")
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert [record["phase"] for record in state] == [
        "bradley_terry", "max_constraint", "bradley_terry"
    ]
    assert all("eval_constraint_violation" in record for record in state)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    steps = {(line["phase"], line["step"]) for line in lines if "loss" in line}
    # 16 rows by 4 is 4 updates, 8 rows by 4 is 2; each phase counts anew.
    assert steps == {
        *(("01-bradley_terry", i) for i in range(1, 5)),
        *(("02-max_constraint", i) for i in range(1, 3)),
        *(("03-bradley_terry", i) for i in range(1, 5)),
    }
    card = read_card(model)
    assert card.objective == "bradley_terry+max_constraint"
    assert card.data_fingerprint
    # Each phase starts its learning rate anew.
    first = {line["phase"]: line["learning_rate"] for line in lines if line.get("step") == 1}
    assert set(first.values()) == {1e-3}


def test_same_seed_gives_the_same_weights(world, tmp_path):
    first = train(settings(world, **FARMA), tmp_path / "a")
    second = train(settings(world, **FARMA), tmp_path / "b")
    assert_equal_weights(weights(first), weights(second))


@pytest.mark.slow
def test_interrupted_between_phases_resumes_to_the_same_weights(world, tmp_path, monkeypatch):
    whole = train(settings(world, **FARMA), tmp_path / "whole")
    real, calls = run_module.fit, []

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(run_module, "fit", failing)
    with pytest.raises(KeyboardInterrupt):
        train(settings(world, **FARMA), tmp_path / "cut")
    monkeypatch.setattr(run_module, "fit", real)
    again = train(settings(world, **FARMA), tmp_path / "cut", resume=True)
    assert_equal_weights(weights(whole), weights(again))


@pytest.mark.slow
def test_interrupted_within_a_phase_resumes_to_the_same_weights(world, tmp_path, monkeypatch):
    changes = {"log": {"progress": False, "logging_steps": 1, "save_steps": 1, "print_logs": False}}
    whole = train(settings(world, **changes), tmp_path / "whole")
    real = fit_module.RewardTrainer.compute_loss

    def failing(self, *args, **options):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return real(self, *args, **options)

    monkeypatch.setattr(fit_module.RewardTrainer, "compute_loss", failing)
    with pytest.raises(KeyboardInterrupt):
        train(settings(world, **changes), tmp_path / "cut")
    monkeypatch.setattr(fit_module.RewardTrainer, "compute_loss", real)
    # A checkpoint that was cut short is passed over.
    (tmp_path / "cut" / "phases" / "01-bradley_terry" / "checkpoint-3").mkdir()
    again = train(settings(world, **changes), tmp_path / "cut", resume=True)
    assert_equal_weights(weights(whole), weights(again))


def test_nan_loss_stops_names_the_rows_and_keeps_checkpoints(world, tmp_path, monkeypatch):
    changes = {"log": {"progress": False, "logging_steps": 1, "save_steps": 1, "print_logs": False}}
    real = RewardModel.forward
    calls = []

    def poisoned(self, *arguments):
        output = real(self, *arguments)
        calls.append(1)
        if len(calls) == 3:
            output = output._replace(sequence_rewards=output.sequence_rewards * float("nan"))
        return output

    monkeypatch.setattr(RewardModel, "forward", poisoned)
    with pytest.raises(NonFiniteError, match=r"became nan at update 3.*--resume"):
        train(settings(world, **changes), tmp_path / "run")
    phase = tmp_path / "run" / "phases" / "01-bradley_terry"
    record = json.loads((phase / "nonfinite_batch.json").read_text())
    assert record["step"] == 3
    assert len(record["row_ids"]) == 4
    assert (phase / "checkpoint-2" / "trainer_state.json").exists()
    monkeypatch.setattr(RewardModel, "forward", real)
    assert train(settings(world, **changes), tmp_path / "run", resume=True).exists()


def test_refusals_come_before_any_work(world, tmp_path):
    with pytest.raises(ConfigError, match="best_next_token"):
        train(settings(world, phases=[{"objective": [{"name": "max_constraint"}]}]), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match=r"policy is for the backups .* no phase uses one"):
        train(settings(world, policy=str(world / "base")), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        train(settings(world), tmp_path / "taken")
    assert (tmp_path / "taken" / "note").read_text() == "mine"
    train(settings(world), tmp_path / "run")
    with pytest.raises(ConfigError, match="other settings"):
        train(settings(world, seed=5), tmp_path / "run", resume=True)


def encoder(folder):
    BertForMaskedLM(BertConfig(
        vocab_size=80, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64,
    )).save_pretrained(folder)


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def of_type(name):
    return lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": name}))


@pytest.mark.parametrize(("damage", "changes", "said"), [
    (shutil.rmtree, {}, "Expected a model folder at .*base, there is none"),
    (lambda folder: (folder / "config.json").unlink(), {}, "holds no config.json"),
    (lambda folder: (folder / "model.safetensors").unlink(), {}, r"weights .* found none"),
    (cut, {}, "cannot be loaded .*SafetensorError"),
    (of_type("t5"), {"head": {"kind": "vocabulary"}}, "no causal language model of .* 't5'"),
    (of_type("lama"), {}, "lama"),
    (encoder, {}, "no linear 'score' layer"),
    (encoder, {"head": {"kind": "vocabulary"}}, "attends to later tokens"),
    (None, {"lora": {"target_modules": ["q_prj"]}}, "q_prj.* linear layers .* q_proj"),
    (None, {"attn_implementation": "flahs"}, "flahs"),
    (encoder, {
        "base_model": None, "head": {"kind": "vocabulary"},
        "phases": [{"objective": [{"name": "bradley_terry"}, {
            "name": "max_constraint", "options": {"backup": "policy_mean"},
        }]}],
    }, "attends to later tokens"),
])
def test_a_bad_base_model_is_refused_before_data_are_prepared(
    world, tmp_path, monkeypatch, damage, changes, said
):
    folder = shutil.copytree(world / "base", tmp_path / "base")
    if damage is not None:
        damage(folder)
    if "base_model" in changes:
        changes = changes | {"base_model": str(world / "base"), "policy": str(folder)}
    monkeypatch.setattr("rewardsteer.training.run.prepare", None)
    config = settings(world, **{
        "base_model": str(folder), "prepared": None,
        "data": {"sources": [{"name": "pairs", "path": str(world / "rows.jsonl")}]}, **changes,
    })
    with pytest.raises((CheckpointError, ConfigError), match=said):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_backups_under_a_policy_train_and_leave_the_policy_out_of_the_folder(world, tmp_path):
    options = {"backup": "policy_soft", "temperature": 0.5}
    config = settings(
        world, head={"kind": "vocabulary"}, rounds=1,
        phases=[{"objective": [{"name": "max_constraint", "options": options}], "rows": 4}],
    )
    folder = train(config, tmp_path / "run")
    assert not [name for name in weights(folder) if "policy" in name]
    with pytest.raises(ConfigError, match="is a reward model; name the policy"):
        train(config.model_copy(update={"policy": str(folder)}), tmp_path / "other")


def test_backups_under_a_policy_that_pads_with_its_end_of_text(world, tmp_path):
    """As in most chat models: a padding token is added to the reward model, and the policy reads
    the same padded batches."""
    base = save_tiny(tmp_path / "base", pad_is_eos=True)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(
        json.dumps({"prompt": f"{n}+1=", "chosen": "1" * n, "rejected": "2"}) + "\n"
        for n in range(2, 10)
    ))
    config = settings(
        world, base_model=str(base), prepared=None, packing="off", head={"kind": "vocabulary"},
        data={"sources": [{"name": "pairs", "path": str(pairs)}], "template": {"kind": "text"},
              "prefix_start": 0},
        rounds=1, phases=[{"objective": [
            {"name": "max_constraint", "options": {"backup": "policy_mean"}}
        ]}],
    )
    folder = train(config, tmp_path / "run")
    assert len(load_tokenizer(folder)) == len(load_tokenizer(base)) + 1


@pytest.mark.parametrize("head", [
    {"kind": "scalar"}, {"kind": "scalar", "layers": "mlp"}, {"kind": "vocabulary"},
])
def test_adapters_train_and_merge_into_a_plain_folder(world, tmp_path, head):
    config = settings(world, head=head, lora={"rank": 4, "alpha": 8})
    model = weights(train(config, tmp_path / "run"))
    assert not any("lora" in name for name in model)
    base = tiny_causal_lm(vocab_size=19).state_dict()
    query = "base.model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(model[query], base[query.removeprefix("base.")])


@pytest.mark.slow
@pytest.mark.parametrize("head", [
    {"kind": "scalar"}, {"kind": "scalar", "layers": "mlp"}, {"kind": "vocabulary"},
])
def test_a_kept_adapter_is_the_merged_model(world, tmp_path, head):
    texts = ["1+2=", "3"], ["3", "4+1"]
    merged, kept = (
        train(settings(world, head=head, lora={"rank": 4, "merge": merge}), tmp_path / str(merge))
        for merge in (True, False)
    )
    assert (kept / "adapter_model.safetensors").exists()
    assert not (kept / "model.safetensors").exists()
    rewards = [load_scorer(folder).score(*texts) for folder in (merged, kept)]
    assert rewards[0] == pytest.approx(rewards[1], abs=1e-5)
    if head["kind"] == "vocabulary":
        with pytest.raises(CheckpointError, match=r"an adapter with a vocabulary head, .*=vocab"):
            train(settings(world, base_model=str(kept)), tmp_path / "other")


def test_a_kept_adapter_leaves_the_embeddings_as_they_are(world, tmp_path):
    """Where padding is end-of-text, as in most chat models, no row is added for another token."""
    base = save_tiny(tmp_path / "base", pad_is_eos=True)
    config = settings(world, base_model=str(base), lora={"rank": 2, "merge": False})
    tokenizer = load_tokenizer(base)
    model = build(config, tokenizer)
    assert len(model.carrier.get_input_embeddings().weight) == len(tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == model.carrier.config.pad_token_id


@pytest.mark.parametrize("pad_is_eos", [True, False])
def test_a_kept_adapter_trains_on_padded_rows_of_a_base_without_padding(
    world, tmp_path, pad_is_eos
):
    """A whole run: rows of unequal length are padded by a token that the base has."""
    base = save_tiny(tmp_path / "base", pad_is_eos=True)
    if not pad_is_eos:
        tokenizer = load_tokenizer(base)
        tokenizer.pad_token = None
        tokenizer.save_pretrained(base)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(
        json.dumps({"prompt": f"{n}+1=", "chosen": "1" * n, "rejected": "2"}) + "\n"
        for n in range(2, 10)
    ))
    config = settings(
        world, base_model=str(base), prepared=None, packing="off", lora={"rank": 2, "merge": False},
        data={"sources": [{"name": "pairs", "path": str(pairs)}], "template": {"kind": "text"}},
    )
    folder = train(config, tmp_path / "run")
    size = len(load_tokenizer(base))
    assert len(load_tokenizer(folder)) == size
    scorer = load_scorer(folder)
    alone = [scorer.score([prompt], [text])[0] for prompt, text in (("2+1=", "3"), ("2+1=", "345"))]
    assert scorer.score(["2+1=", "2+1="], ["3", "345"]) == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_mixed_steps_with_gradient_checkpointing(world, tmp_path, precision):
    config = settings(
        world, head={"kind": "vocabulary"},
        phases=[{"objective": [
            {"name": "bradley_terry"}, {"name": "max_constraint", "weight": 0.5},
        ]}],
        optimiser={
            "learning_rate": 1e-3, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2, "max_steps": 2,
            "precision": precision, "gradient_checkpointing": True,
        },
    )
    train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    first = next(line for line in lines if "loss" in line)
    expected = first["loss_bradley_terry"] + 0.5 * first["loss_max_constraint"]
    assert first["loss"] == pytest.approx(expected, rel=2e-2)


@pytest.mark.slow
def test_best_phase_is_kept(world, tmp_path, monkeypatch):
    figures = iter([0.9, 0.0, 0.4])
    real = run_module.fit

    def scored(*args, **options):
        return real(*args, **options) | {"eval_accuracy": next(figures)}

    monkeypatch.setattr(run_module, "fit", scored)
    train(settings(world, **FARMA, select="best"), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["kept"] == "phases/01-bradley_terry"


def test_best_checkpoint_within_a_phase_is_kept(world, tmp_path):
    log = {
        "progress": False, "print_logs": False, "logging_steps": 1, "eval_steps": 1,
        "save_steps": 1,
    }
    train(settings(world, select="best", log=log, optimiser={
        "learning_rate": 5e-2, "per_device_train_batch_size": 4, "max_steps": 6,
    }), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    seen = [line["eval_accuracy"] for line in lines if "eval_accuracy" in line]
    assert len(seen) == 7  # six within the phase, one of the weights that were kept
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["phases"][0]["eval_accuracy"] == max(seen[:6])
    with pytest.raises(ValueError, match=r"multiple of log\.eval_steps"):
        settings(world, select="best", log=log | {"eval_steps": 2, "save_steps": 3})


def test_adapters_on_a_vocabulary_that_had_to_grow(world, tmp_path):
    tokenizer = build_tokenizer()
    # As many rows as there are tokens but one: the model gets a new output layer.
    tiny_causal_lm(vocab_size=len(tokenizer) - 1).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config = settings(world, base_model=str(tmp_path / "base"), lora={"rank": 2}, **FARMA)
    assert train(config, tmp_path / "run").exists()


@pytest.mark.parametrize(("last", "meaning"), [
    ("bradley_terry", "value"), ("autoregressive", "log_probability"),
])
def test_rewards_are_read_as_the_last_phase_trained_them(world, tmp_path, last, meaning):
    first = {"bradley_terry": "autoregressive", "autoregressive": "bradley_terry"}[last]
    model = train(settings(world, head={"kind": "vocabulary"}, phases=[
        {"objective": [{"name": name}], "rows": 8} for name in (first, last)
    ]), tmp_path / "run")
    card = read_card(model)
    assert set(card.objective.split("+")) == {"bradley_terry", "autoregressive"}
    assert card.reading == meaning
    scorer = load_scorer(model)
    assert scorer.autoregressive == (meaning == "log_probability")
    assert trained_with(scorer, "autoregressive") == scorer.autoregressive
    # A card of before says nothing, and the objective decides.
    assert card.model_copy(update={"reading": ""}).reads_log_probabilities


@pytest.mark.slow
def test_training_from_a_reward_model_keeps_its_template(world, tmp_path):
    """Where no template is named, data follows the template of the reward model."""
    source = {"name": "arithmetic", "options": {"rows": 24}}
    named = {"source": source, "prefix_start": 0, "drop_overlap": False,
             "template": {"kind": "text", "prompt": "1+{prompt}", "append_eos": False}}
    first = train(settings(world, prepared=None, data=named), tmp_path / "first")
    unnamed = {name: value for name, value in named.items() if name != "template"}
    again = settings(world, base_model=str(first), prepared=None, data=unnamed)
    second = train(again, tmp_path / "second")
    assert read_card(second).template == read_card(first).template
    assert load_manifest(tmp_path / "second" / "data").template["prompt"] == "1+{prompt}"
    # A template that is named counts; a language model has none.
    other = unnamed | {"template": {"kind": "text", "prompt": "{prompt}+"}}
    third = train(settings(world, base_model=str(first), prepared=None, data=other), tmp_path / "3")
    assert read_card(third).template["prompt"] == "{prompt}+"
    plain = train(settings(world, prepared=None, data=unnamed), tmp_path / "plain")
    assert read_card(plain).template["prompt"] == "{prompt}"

    def prepared(name, **changes):
        place = str(tmp_path / name / "data")
        return settings(world, base_model=str(first), prepared=place, **changes)

    train(prepared("second"), tmp_path / "fits")
    train(prepared("second", data=unnamed), tmp_path / "fits-too")
    for data in (None, unnamed):
        with pytest.raises(MismatchError, match=r"was trained with \(prompt: .*; append_eos: "):
            train(prepared("plain", data=data), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    train(prepared("3", data=other), tmp_path / "named")


def test_data_prepared_with_a_reward_models_tokenizer_has_its_template(world, tmp_path):
    named = {"source": {"name": "arithmetic", "options": {"rows": 24}}, "drop_overlap": False,
             "template": {"kind": "text", "prompt": "1+{prompt}"}}
    model = train(settings(world, prepared=None, data=named), tmp_path / "run")
    common = ("data", "prepare", "arithmetic", "sources.0.options.rows=24", "drop_overlap=false",
              "--tokenizer", str(model))
    for name, more, expected in (
        ("unnamed", (), "1+{prompt}"), ("named", ("--template", "text"), "{prompt}"),
        ("set", ("template.prompt=2+{prompt}",), "2+{prompt}"),
    ):
        out = tmp_path / name
        result = CliRunner().invoke(app, [*common, *more, "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert load_manifest(out).template["prompt"] == expected


def test_rows_that_preparation_leaves_out_are_told(world, tmp_path, caplog):
    caplog.set_level("INFO")
    rows = [{"prompt": f"{i % 4}+1=", "chosen": "2", "rejected": "33"} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"sources": [{"name": "pairs", "path": str(tmp_path / "pairs.jsonl")}]}
    train(settings(world, prepared=None, data=data), tmp_path / "out")
    assert "Prepared 3 training and 1 test rows; others were left out (36 repeated)." in caplog.text


def test_what_is_kept_when_the_model_cannot_be_written_is_told(world, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(RewardModel, "save_pretrained", full)
    with pytest.raises(OutputError, match=r"out/model cannot be written .*the phases' weights are"):
        train(settings(world), tmp_path / "out")
    monkeypatch.undo()
    assert (train(settings(world), tmp_path / "out", resume=True) / "config.json").exists()
