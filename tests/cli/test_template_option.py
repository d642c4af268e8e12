"""``--template`` and what commands choose by themselves for chat models."""

import json

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.policy import load_policy
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.models.kinds import load_scorer
from rewardsteer.records import Message
from rewardsteer.serving.config import ServingConfig
from rewardsteer.serving.models import ServedModels
from tests.chat import plain_reward, save_classifier, save_policy

TALK = [{"role": "user", "content": "Hi?"}]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    save_policy(folder / "policy", "gemma")
    save_classifier(folder / "rm", "gemma")
    (folder / "prompts.jsonl").write_text(
        json.dumps({"prompt": "Hi?"}) + "\n" + json.dumps({"prompt": TALK}) + "\n"
    )
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": TALK, "completion": "Yes."}) + "\n")
    return folder


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


def generate(world, out, *options):
    return run("generate", "--model", world / "policy", "--prompts", world / "prompts.jsonl",
               "--output", out, "--max-new-tokens", 3, "--device", "cpu", *options)


@pytest.mark.parametrize("guided", [False, True])
def test_generate_and_serve_write_the_same_prompt(world, tmp_path, guided):
    options = ["--reward-model", world / "rm"] if guided else []
    code, output = generate(world, tmp_path / "out.jsonl", *options)
    assert code == 0, output
    assert output.count("template: chat") == 1
    why = (
        "args (the default for a scalar head of unknown training" if guided
        else "none (there is no reward model"
    )
    assert f"method: {why}; choose another with --method)\n" in output
    settings = json.loads((tmp_path / "out.jsonl.settings.json").read_text())
    assert settings["template"]["kind"] == "chat"
    # As `serve` chooses it: a scalar reward model guides by ARGS.
    assert settings["method"] == ("args" if guided else "none")
    tokenizer = load_tokenizer(world / "policy")
    scorer = load_scorer(world / "rm", device="cpu") if guided else None
    served = ServedModels(
        load_policy(world / "policy", device="cpu"), tokenizer, scorer,
        DecodingConfig(method="none"), ServingConfig(),
    )
    expected = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False)
    assert served.encode([Message(**TALK[0])], "0") == expected
    assert "method: " not in generate(world, tmp_path / "named.jsonl", "--method", "none")[1]
    row = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])
    assert row["prompt"] == tokenizer.decode(expected)


def test_what_has_no_effect_is_refused(world, tmp_path):
    code, output = generate(world, tmp_path / "a", "--method", "none", "--reward-model",
                            world / "rm")
    assert code != 0
    assert "--reward-model is not used by --method none" in " ".join(output.split())
    code, output = generate(world, tmp_path / "a", "--weight", 3)
    assert code != 0
    assert "--weight is not used by --method none" in " ".join(output.split())


def test_score_takes_a_template_in_every_form(world, tmp_path):
    expected = plain_reward(world / "rm", [*TALK, {"role": "assistant", "content": "Yes."}])
    (tmp_path / "text.yaml").write_text("kind: text\n")
    found = {}
    for number, form in enumerate(("auto", "chat", "text", '{"kind": "text"}',
                                   str(tmp_path / "text.yaml"))):
        out = tmp_path / f"{number}.jsonl"
        code, output = run("score", "--reward-model", world / "rm", "--input",
                           world / "rows.jsonl", "--output", out, "--device", "cpu",
                           "--template", form)
        assert code == 0, output
        found[form] = json.loads(out.read_text())["reward"]
    first, second, *others = found.values()
    assert first == second == pytest.approx(expected, abs=1e-5)
    assert others == pytest.approx([others[0]] * 3, abs=1e-9)
    assert abs(others[0] - expected) > 1e-4
    code, output = run("score", "--reward-model", world / "rm", "--input", world / "rows.jsonl",
                       "--output", tmp_path / "x.jsonl", "--template", "chatml")
    assert code != 0
    assert "there is no file chatml" in " ".join(output.split())
