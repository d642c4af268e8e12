"""Distillation from a teacher's records to a folder that guides: records against plain scoring,
resumed and refused; what a student learns."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.configuration import load_config
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.generate import build_method, generate
from rewardsteer.decoding.policy import load_policy
from rewardsteer.distillation.collect import choose_candidates, draw_positions, draw_unseen
from rewardsteer.distillation.config import CandidateConfig, DistilConfig
from rewardsteer.distillation.records import read_records, shard_path, split_records
from rewardsteer.distillation.run import build_student, distil
from rewardsteer.distillation.teacher import Asked, TextTeacher, TokenTeacher
from rewardsteer.errors import ConfigError, DataError, MismatchError, RewardsteerError
from rewardsteer.evaluation.guide import evaluate_guide
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer, read_card
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import save_tiny
from tests.training.engines import launch, launch_module

QUIET = {"progress": False, "print_logs": False, "logging_steps": 1}


def save_reward_model(folder, base, seed, **head):
    config = HeadConfig(**({"kind": "scalar"} | head))
    torch.manual_seed(seed)
    model = RewardModel.from_base(base, config)
    if config.kind == "scalar":
        # A new head says little; a teacher has opinions.
        model.carrier.score.weight.data.normal_(std=0.5)
    template = {"kind": "text", "append_eos": False}
    model.save_pretrained(
        folder, load_tokenizer(base), CheckpointCard(head=config, template=template)
    )
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distil")
    policy = save_tiny(folder / "policy")
    save_tiny(folder / "other", seed=5)
    save_reward_model(folder / "teacher", folder / "other", 1)
    save_reward_model(folder / "stranger", folder / "other", 2)
    rows = [{"id": f"q{i}", "prompt": f"{i}+{i}="} for i in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = load_config(DistilConfig, settings(folder))
    distil(config, folder / "run")
    return folder, policy


def settings(folder, **changes):
    return {
        "policy": str(folder / "policy"), "teacher": str(folder / "teacher"),
        "prompts": str(folder / "prompts.jsonl"),
        "head": {"kind": "vocabulary", "layers": "embedding"},
        "sampling": {"max_new_tokens": 6, "per_prompt": 2},
        "candidates": {"top_k": 5, "positions": 4}, "log": QUIET, "test_fraction": 0.3,
        "optimiser": {"max_steps": 60, "learning_rate": 0.03, "per_device_train_batch_size": 8},
        "loss": {"weight": 1.0},
    } | changes


def test_records_equal_plain_scoring_candidate_by_candidate(world):
    folder, _ = world
    rows, teacher = read_records(folder / "run" / "records"), load_scorer(folder / "teacher")
    policy, tokenizer = load_policy(folder / "policy"), load_tokenizer(folder / "policy")
    assert len(rows) == 16
    ends = 0
    for row in rows:
        ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
        logits = policy(ids).logits[0, :, : len(tokenizer)].float().log_softmax(-1)
        for at, length in enumerate(row["candidate_lengths"]):
            before, tokens = row["chosen_ids"][:length], row["tokens"][at]
            torch.testing.assert_close(
                torch.tensor(row["log_policy"][at]),
                logits[len(row["prompt_ids"]) + length - 1, tokens].detach(), atol=1e-5, rtol=1e-5,
            )
            assert tokens[row["drawn"][at]] == row["chosen_ids"][length]
            assert not set(tokens) & set(row["unseen"][at])
            # The teacher never saw an end of text behind a response: such a candidate is worth the
            # response before it.
            eos = tokenizer.eos_token_id
            closed = [before if before and one == eos else [*before, one] for one in tokens]
            ends += tokens.count(eos)
            plain = teacher.score_ids([row["prompt_ids"]] * len(tokens), closed)
            np.testing.assert_allclose(row["teacher"][at], plain, atol=1e-5, err_msg=str(tokens))
    assert ends, "no candidate ends a response"


def test_a_student_learns_the_guidance_and_guides_as_farma(world):
    folder, _ = world
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").open()]
    lost = [line["guidance_lost"] for line in lines if "guidance_lost" in line]
    assert np.mean(lost[-5:]) < 0.5 * lost[0]
    card = read_card(folder / "run" / "model")
    assert card.objective == "distillation"
    assert [metric.name for metric in card.metrics] == ["share of the teacher's guidance lost"]
    student = load_scorer(folder / "run" / "model")
    config = DecodingConfig(method="farma", mode="greedy", weight=3.0, max_new_tokens=4)
    answers = list(generate(
        load_policy(folder / "policy"), load_tokenizer(folder / "policy"), ["1+1=", "2+2="],
        build_method(config, student), config,
    ))
    assert all(one.error is None and one.token_ids for one in answers)


def test_lost_shards_are_made_again_and_the_run_goes_on(world, tmp_path):
    folder, _ = world
    config = load_config(DistilConfig, settings(
        folder, optimiser={"max_steps": 1, "learning_rate": 0.01}
    ))
    distil(config, tmp_path / "run")
    shard = shard_path(tmp_path / "run" / "records", 0)
    before = shard.read_bytes()
    shard.unlink()
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(DataError, match="missing or damaged"):
        read_records(tmp_path / "run" / "records")
    distil(config, tmp_path / "run", resume=True)
    assert shard.read_bytes() == before
    other = config.model_copy(update={"seed": 3})
    with pytest.raises(ConfigError, match="other settings"):
        distil(other, tmp_path / "run", resume=True)


def test_records_of_another_teacher_and_other_tokenizers_are_refused(world, tmp_path):
    folder, _ = world
    shared = settings(folder, records=str(folder / "run" / "records"))
    del shared["prompts"]
    config = load_config(DistilConfig, shared | {"teacher": str(folder / "stranger")})
    with pytest.raises(MismatchError, match="are of another teacher"):
        distil(config, tmp_path / "a")
    save_tiny(tmp_path / "foreign", characters="xyz")
    config = load_config(DistilConfig, shared | {"base_model": str(tmp_path / "foreign")})
    with pytest.raises(MismatchError, match="choose a base_model with the policy's tokenizer"):
        distil(config, tmp_path / "b")
    assert not (tmp_path / "a").exists()


def test_texts_are_judged_where_the_teacher_has_another_tokenizer(world, tmp_path):
    folder, policy = world
    tokenizer, teacher = load_tokenizer(policy), load_scorer(folder / "teacher")
    row = read_records(folder / "run" / "records")[0]
    asked = Asked("0+0=", row["prompt_ids"], row["chosen_ids"], row["candidate_lengths"],
                  np.array(row["tokens"]))
    stops = {tokenizer.eos_token_id}
    [by_tokens] = TokenTeacher(teacher, stops).rewards([asked])
    [by_texts] = TextTeacher(teacher, tokenizer, stops, teacher.template).rewards([asked])
    # Characters are tokens here, so that texts and tokens are the same but for special tokens.
    plain = [[len(tokenizer.decode([one])) == 1 for one in some] for some in row["tokens"]]
    assert np.sum(plain) > 5
    assert by_texts[plain] == pytest.approx(by_tokens[plain], abs=1e-5)


def test_a_teacher_with_a_vocabulary_head_is_asked_once_per_position(world, tmp_path):
    folder, _ = world
    save_reward_model(tmp_path / "teacher", folder / "other", 3, kind="vocabulary")
    teacher = load_scorer(tmp_path / "teacher")
    asked = Asked("", [5, 6], [7, 8, 9], [0, 2], np.array([[4, 5], [6, 10**6]]))
    [rewards] = TokenTeacher(teacher, ()).rewards([asked])
    plain = teacher.score_ids([[5, 6]] * 2 + [[5, 6]], [[4], [5], [7, 8, 6]])
    assert rewards[0] == pytest.approx(plain[:2], abs=1e-5)
    assert rewards[1, 0] == pytest.approx(plain[2], abs=1e-5)
    assert math.isnan(rewards[1, 1])


def test_draws_of_positions_and_tokens():
    rng, logits = np.random.default_rng(0), torch.zeros(40, 9)
    logits[20:, 0] = 30  # certain
    log_probs = logits.log_softmax(-1)
    places = draw_positions(log_probs, CandidateConfig(positions=10, draw="entropy"), rng)
    assert sorted(set(places)) == list(places)
    assert (places < 20).all()
    assert len(draw_positions(log_probs, CandidateConfig(positions=99), rng)) == 40
    ordered = (-torch.arange(9.0)).expand(2, 9).log_softmax(-1)
    tokens, drawn = choose_candidates(ordered, np.array([0, 7]), 3)
    assert [tokens[0, drawn[0]], tokens[1, drawn[1]]] == [0, 7]
    assert drawn[1] == 2
    assert draw_unseen(np.arange(9)[None], 9, 2, rng).shape == (1, 0)


def test_prompts_of_one_question_stay_together(world):
    folder, _ = world
    train, held = split_records(read_records(folder / "run" / "records"), 0.3, 0)
    assert not set(train["group"]) & set(held["group"])
    assert len(set(held["group"])) == 2
    with pytest.raises(DataError, match="at least 2 prompts"):
        split_records(held.select([0]), 0.3, 0)


def test_command_refuses_before_it_loads(world, tmp_path):
    folder, _ = world
    line = ["distil", "pairs/distil", f"policy={folder / 'policy'}",
            f"teacher={folder / 'teacher'}", "prompts=nope.jsonl", "--out", str(tmp_path / "x")]
    found = CliRunner().invoke(app, line)
    assert found.exit_code == 2
    assert "nope.jsonl" in found.output


@pytest.mark.parametrize(("changes", "said"), [
    ({"log": QUIET | {"report_to": ["clearml"]}}, "clearml, which is not installed"),
    ({"trainer": {"optim": "adamw_torchh"}}, "adamw_torchh"),
    ({"trainer": {"metric_for_best_model": "lost"}}, "no figure of .* Known: accuracy, .*lost_kl"),
    ({"optimiser": {"train_batch_size": 3}}, "optimiser.train_batch_size is 3"),
    ({"policy": "teacher"}, "reward model with a scalar head"),
    ({"prompts": "one.jsonl"}, "needs at least 2"),
    ({"policy": "damaged"}, "cannot be loaded"),
])
def test_what_cannot_be_trained_is_refused_before_records_are_made(
    world, tmp_path, monkeypatch, changes, said
):
    folder, policy = world
    (folder / "one.jsonl").write_text('{"prompt": "1+1="}\n')
    shutil.copytree(policy, folder / "damaged", dirs_exist_ok=True)
    (folder / "damaged" / "model.safetensors").write_bytes(b"no weights")
    for name in ("policy", "prompts"):
        if name in changes:
            changes = changes | {name: str(folder / changes[name])}
    monkeypatch.setattr("rewardsteer.distillation.run.collect", None)
    config = load_config(DistilConfig, settings(folder, **changes))
    with pytest.raises(RewardsteerError, match=said):
        distil(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_temperatures_are_those_of_decoding(world):
    for temperature in (0.0, 1e-30, math.inf):
        with pytest.raises(ConfigError, match=r"sampling\.temperature"):
            load_config(
                DistilConfig, settings(world[0], sampling={"temperature": temperature})
            )


def test_a_student_reads_without_dropout_and_within_its_positions(world, tmp_path):
    folder, _ = world
    base = save_tiny(tmp_path / "base", "gpt2")
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(base, n_positions=12, resid_pdrop=0.5))
    model.save_pretrained(base)
    rows = [{"id": one, "prompt": one} for one in ("1+1=", "2+2=", "1000+1000=")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = load_config(DistilConfig, settings(
        folder, base_model=str(base), prompts=str(tmp_path / "p.jsonl"), optimiser={"max_steps": 1}
    ))
    student, _ = build_student(config)
    rates = {one.p for one in student.modules() if isinstance(one, torch.nn.Dropout)}
    assert rates == {0.0}
    distil(config, tmp_path / "out")
    assert len(read_records(tmp_path / "out" / "records")) == 6
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["rows"] + result["held_out"] == 4


def test_a_guide_is_measured_against_the_teacher(world, tmp_path):
    folder, _ = world
    records, out = folder / "run" / "records", tmp_path / "out"
    line = ["evaluate", "guide", "--reward-model", str(folder / "run" / "model"), "--records",
            str(records), "--test-fraction", "0.3", "--out", str(out), "--device", "cpu"]
    found = CliRunner().invoke(app, line)
    assert found.exit_code == 0, found.output
    student = json.loads((out / "metrics.json").read_text())["figures"]
    teacher = evaluate_guide(load_scorer(folder / "teacher"), records, test_fraction=0.3)
    stranger = evaluate_guide(load_scorer(folder / "stranger"), records, test_fraction=0.3)
    lost = [one["guidance_lost"]["value"] for one in (teacher, student, stranger)]
    assert lost[0] < lost[1] < lost[2]
    assert teacher["best_agrees"]["value"] > 0.9
    save_tiny(tmp_path / "foreign", characters="xyz")
    save_reward_model(tmp_path / "judge", tmp_path / "foreign", 1)
    with pytest.raises(MismatchError, match="give a reward model with the policy's"):
        evaluate_guide(load_scorer(tmp_path / "judge"), records)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
@pytest.mark.parametrize("layers", ["linear", "low_rank", "embedding"])
def test_the_student_of_sharded_processes_is_whole(world, tmp_path, warm, engine, layers):
    """Its folder holds the weights of all processes, and is what one process would write."""
    folder, _ = world
    head = {"kind": "vocabulary", "layers": layers} | ({"rank": 3} if layers == "low_rank" else {})
    config = settings(
        folder, head=head, records=str(folder / "run" / "records"), prompts=None,
        freeze_backbone=layers != "linear",
        optimiser={"max_steps": 3, "learning_rate": 0.03, "per_device_train_batch_size": 4},
    )
    config = load_config(DistilConfig, config).model_dump(mode="json")
    launch(engine, [{"config": config, "out": str(tmp_path / "run")}], tmp_path, warm)
    config["optimiser"]["per_device_train_batch_size"] = 8
    distil(load_config(DistilConfig, config), tmp_path / "alone")
    for name in ("model.safetensors", "value_head.safetensors"):
        if not (tmp_path / "alone" / "model" / name).exists():
            continue
        ours, theirs = (load_file(tmp_path / run / "model" / name) for run in ("run", "alone"))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_make_the_records_once_and_train_one_student(world, tmp_path, warm):
    folder, _ = world
    (tmp_path / "d.yaml").write_text(json.dumps(settings(
        folder, optimiser={"max_steps": 2, "per_device_train_batch_size": 4}
    )))
    launch_module("ddp", ["rewardsteer", "distil", str(tmp_path / "d.yaml"), "--out",
                          str(tmp_path / "run"), "--device", "cpu"], warm)
    rows, before = (
        read_records(place / "records") for place in (tmp_path / "run", folder / "run")
    )
    assert rows.to_list() == before.to_list()  # As one process makes them.
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == [1, 2]  # One process writes.
    student = load_scorer(tmp_path / "run" / "model")
    figures = evaluate_guide(student, tmp_path / "run" / "records", test_fraction=0.3)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert figures["guidance_lost"]["value"] == pytest.approx(
        result["eval_lost_kl"] / result["eval_guidance_kl"], rel=1e-4
    )
