"""Each planted fault is found, and a healthy model has none."""

import json
import shutil

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from rewardsteer import RewardModel
from rewardsteer.cli.main import app
from rewardsteer.data.template import Template
from rewardsteer.doctor.examination import examine
from rewardsteer.errors import DataError
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.outputs import write_json
from tests.chat import plain_reward, save_classifier
from tests.cli.kinds_of_models import encoder
from tests.doctor import faults


def faults_of(diagnosis):
    return {one.check: one for one in diagnosis.faults}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return faults.healthy(tmp_path_factory.mktemp("healthy") / "m")


def test_a_healthy_model_has_no_fault(healthy):
    found = examine(healthy, device="cpu")
    assert found.healthy, str(found)
    status = {one.check: one.status for one in found.findings}
    for check in ("head", "labels", "padding token", "length", "precision", "batches",
                  "transformers", "server"):
        assert status[check] == "ok", check
    # What could not be compared is never said to be equal.
    assert status["vllm"] == "not checked"
    assert found.about["template"].startswith("chat")
    assert [token.text for token in found.tokens[:2]] == ["<|im_start|>", "s"]
    assert found.tokens[-1].text == "\n"


def test_a_healthy_process_reward_model_has_no_fault(healthy, tmp_path):
    """Its rewards are aggregates of steps, and not what the head gives at the last token."""
    folder = shutil.copytree(healthy, tmp_path / "m")
    card = CheckpointCard(head=HeadConfig(), objective="process", reading="step_logit")
    write_json(folder / "rewardsteer.json", card.model_dump(mode="json"))
    found = examine(folder, device="cpu")
    status = {one.check: one.status for one in found.findings}
    assert status["batches"] == "ok"
    assert status["transformers"] == "not checked"
    assert found.healthy, str(found)


def test_a_model_that_is_read_as_texts(tmp_path):
    """What is not compared is said, and nothing is called equal."""
    found = examine(encoder(tmp_path / "m"), device="cpu")
    status = {one.check: one.status for one in found.findings}
    assert status["transformers"] == status["vllm"] == "not checked"
    assert status["batches"] == status["server"] == "ok"
    assert found.healthy
    assert found.tokens == []


def test_from_python(healthy):
    found = RewardModel.from_pretrained(healthy, device="cpu").doctor()
    assert found.as_dict() | {"model": ""} == examine(healthy, device="cpu").as_dict() | {
        "model": ""
    }


def test_wrong_template(healthy):
    found = faults_of(examine(healthy, device="cpu", template=Template(kind="text")))
    assert "another template than the model's own" in found["template"].summary
    assert found["template"].figures["largest_difference"] > 1e-3


def test_a_template_that_writes_todays_date_is_noted(tmp_path):
    folder = faults.healthy(tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% set today = strftime_now('%d') %}" + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    found = examine(folder, device="cpu")
    [note] = [one for one in found.findings if "today's date" in one.summary]
    assert note.status == "note"
    assert found.healthy


def test_pad_is_eos_reads_one_token_early(tmp_path):
    folder = faults.pad_is_eos(tmp_path / "m")
    diagnosis = examine(folder, device="cpu")
    found = faults_of(diagnosis)
    assert set(found) == {"padding token"}
    assert found["padding token"].figures["tokens_early"] == 1
    # The numbers that it names are those of plain transformers and of the last token.
    messages = [{"role": "user", "content": "What is 2 + 2?"},
                {"role": "assistant", "content": "2 + 2 is 4."}]
    assert f"{plain_reward(folder, messages):.5g}" in found["padding token"].summary
    faults.change(folder, "config.json", pad_token_id=0)
    assert f"{plain_reward(folder, messages):.5g}" in found["padding token"].summary


def test_padding_tokens_that_differ(healthy, tmp_path):
    folder = faults.healthy(tmp_path / "m")
    faults.change(folder, "config.json", pad_token_id=0)
    assert "Make the two equal" in faults_of(examine(folder, device="cpu"))["padding token"].summary


@pytest.mark.parametrize(("names", "fault"), [
    (("chosen", "rejected"), True), (("GOOD", "BAD"), True), (("rejected", "chosen"), False),
    (("LABEL_0", "LABEL_1"), False),
])
def test_swapped_labels_by_their_names(tmp_path, names, fault):
    folder = faults.labelled(tmp_path / "m", names)
    found = examine(folder, device="cpu").findings
    [labels] = [one for one in found if one.check == "labels"]
    assert labels.status == ("fault" if fault else "note")
    assert ("swapped" in labels.summary) == fault


def test_swapped_labels_by_the_rewards(healthy, tmp_path):
    """The better answers of all pairs have the lower reward."""
    from rewardsteer.models.kinds import load_scorer

    scorer = load_scorer(healthy, device="cpu")
    texts = [f"answer {number}" for number in range(24)]
    rewards = scorer.score(["Who?"] * 24, texts)
    ranked = [texts[index] for index in rewards.argsort()]
    rows = [{"prompt": "Who?", "chosen": low, "rejected": high}
            for low, high in zip(ranked[:12], ranked[12:], strict=True)]
    wrong = examine(healthy, device="cpu", texts=write(tmp_path / "wrong.jsonl", rows))
    assert "swapped" in faults_of(wrong)["preference"].summary
    right = [{"prompt": "Who?", "chosen": row["rejected"], "rejected": row["chosen"]}
             for row in rows]
    assert examine(healthy, device="cpu", texts=write(tmp_path / "r.jsonl", right)).healthy


def test_double_beginning_of_text(tmp_path):
    found = faults_of(examine(faults.twice_begun(tmp_path / "twice"), device="cpu"))
    assert set(found) == {"beginning-of-text"}
    assert "begin with '<|begin_of_text|>' twice" in found["beginning-of-text"].summary
    # Without a fault here, it is named that others make it.
    once = examine(save_classifier(tmp_path / "once", "llama3"), device="cpu")
    assert once.healthy
    assert {one.check: one.status for one in once.findings}["beginning-of-text"] == "note"


def test_ties_of_bfloat16(tmp_path):
    found = faults_of(examine(faults.in_steps(tmp_path / "m"), device="cpu"))
    assert "equal rewards" in found["precision"].summary
    assert found["precision"].figures["ties_rounded"] > 0.05


def test_truncated_context(tmp_path):
    folder = faults.healthy(tmp_path / "m")
    faults.change(folder, "tokenizer_config.json", model_max_length=90)
    found = faults_of(examine(folder, device="cpu"))
    assert set(found) == {"length"}
    assert found["length"].figures["cut"] > 0
    assert found["length"].figures["largest_difference"] > 1e-4
    faults.change(folder, "tokenizer_config.json", model_max_length=100000)
    rows = [{"prompt": "p", "completion": "x" * length} for length in (600, 10, 20)]
    found = faults_of(examine(folder, device="cpu", texts=write(tmp_path / "long.jsonl", rows)))
    assert set(found) == {"length"}
    assert "1 of 3 texts" in found["length"].summary
    write(tmp_path / "long.jsonl", rows[:1])
    with pytest.raises(DataError, match="512"):
        examine(folder, device="cpu", texts=tmp_path / "long.jsonl")


def test_adapter_without_its_head(tmp_path):
    found = faults_of(examine(faults.adapter(tmp_path / "m", head=False), device="cpu"))
    assert "draws one at random" in found["head"].summary


def test_adapter_with_its_head(tmp_path):
    assert "head" not in faults_of(examine(faults.adapter(tmp_path / "m", head=True), device="cpu"))


def test_command(healthy, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(app, ["doctor", *map(str, arguments), "--device", "cpu"])

    fine = run(healthy)
    assert fine.exit_code == 0, fine.output
    assert "no fault found; not checked: vllm" in fine.stdout
    sick = run(faults.pad_is_eos(tmp_path / "m"), "--json")
    assert sick.exit_code == 1
    told = json.loads(sick.stdout)
    assert not told["healthy"]
    assert [one["check"] for one in told["findings"] if one["status"] == "fault"] == [
        "padding token"
    ]
    gone = run(tmp_path / "none")
    assert gone.exit_code == 2
    missing = run(healthy, "--texts", tmp_path / "none.jsonl")
    assert missing.exit_code == 2
    assert "there is none" in missing.stderr
