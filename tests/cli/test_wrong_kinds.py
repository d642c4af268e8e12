"""A reward model of a kind that a command cannot use is refused in one sentence that says what
would work, before a policy is loaded: the policy here has weights that cannot be read, so a command
that came so far would say that instead."""

import json

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from tests.cli.kinds_of_models import KINDS, unreadable_policy

ADDRESS = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    files = {
        "x.jsonl": [{"prompt": "1+1", "completion": "2"}],
        "pairs.jsonl": [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(8)],
        "rated.jsonl": [{"prompt": "a", "response": "b", "score": 1.0}],
        "p.jsonl": [{"id": "0", "prompt": "a?"}],
        "rb2.jsonl": [{"id": "0", "prompt": "1 + 1 =", "chosen": ["2"],
                       "rejected": ["a", "b", "c"], "subset": "Math"}],
    }
    for name, rows in files.items():
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    unreadable_policy(root / "policy")
    for name, make in KINDS.items():
        make(root / name)
    made = run("data", "prepare", "pairs", "prefix_start=0", "--path", root / "pairs.jsonl",
               "--tokenizer", root / "scalar", "--out", root / "prepared")
    assert made.exit_code == 0, made.output
    return root


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def generate(method):
    return ("generate", "--model", "{policy}", "--reward-model", "{model}", "--method", method,
            "--prompts", "{root}/p.jsonl", "--output", "{out}")


COMMANDS = {
    "score": ("score", "--reward-model", "{model}", "--input", "{root}/x.jsonl", "--output",
              "{out}"),
    "score benchmark": ("score", "--reward-model", "{model}", "--benchmark",
                        "rewardbench2={root}/rb2.jsonl", "--output", "{out}"),
    "score tokens": ("score", "--reward-model", "{model}", "--input", "{root}/x.jsonl", "--output",
                     "{out}", "--tokens"),
    "preference": ("evaluate", "preference", "--reward-model", "{model}", "--input",
                   "{root}/pairs.jsonl", "--out", "{out}"),
    "benchmark": ("evaluate", "benchmark", "rewardbench2={root}/rb2.jsonl", "--reward-model",
                  "{model}", "--out", "{out}"),
    "goal-state": ("goal-state", "--reward-model", "{model}", "--data", "{root}/prepared"),
    "inspect": ("inspect", "--model", "{policy}", "--reward-model", "{model}", "--prompt", "a",
                "--completion", "b", "--output", "{out}"),
    "responses": ("evaluate", "responses", "--reward-model", "{model}", "--input",
                  "{root}/rated.jsonl", "--out", "{out}"),
    "generation": ("evaluate", "generation", "--model", "{policy}", "--prompts",
                   "{root}/p.jsonl", "--methods", "none", "--judge", "{model}", "--out", "{out}"),
    "serve": ("serve", "--model", "{policy}", "--reward-model", "{model}", "--port", "0"),
    **{method: generate(method) for method in ("farma", "genarm", "pargs", "args", "best_of_n")},
}
EVERY = tuple(COMMANDS)
OF_SCALARS = tuple(name for name in EVERY if name not in ("farma", "genarm"))
GUIDES = ("farma", "genarm", "pargs", "args")
# Kind → commands that refuse it, and words of the sentence: what it is, or what would work.
WRONG = {
    "language_model": (EVERY, "rewardsteer train"),
    "many_labels": (EVERY, "5 outputs (joy, anger"),
    "process_model": (("goal-state", "inspect", *GUIDES), "process_model"),
    "encoder": (("score tokens", "goal-state", "inspect"), "a one-label classifier on a decoder"),
    "adapter_of_a_policy": (EVERY, "not SEQ_CLS"),
    # Methods of another head are refused by the configuration, before weights are looked at.
    "pickled": (OF_SCALARS, "convert it once"),
    "headless": (OF_SCALARS, "lack score.weight"),
    "nothing": (EVERY, "holds no config.json"),
    "vocabulary": (("pargs", "args", "genarm"), "use it with"),
    "scalar": (("farma", "genarm"), "use it with"),
    ADDRESS: (("goal-state", "inspect", "generation", *GUIDES), "folder"),
}
CASES = [(kind, command, words) for kind, (names, words) in WRONG.items() for command in names]
CASES += [("encoder", method, "use it with adaptive_best_of_n, beam") for method in GUIDES]


@pytest.mark.parametrize(("kind", "command", "words"), CASES)
def test_refused_in_one_sentence_before_work(world, tmp_path, kind, command, words):
    model = kind if kind == ADDRESS else str(world / kind)
    values = {"model": model, "root": str(world), "policy": str(world / "policy"),
              "out": str(tmp_path / "out.jsonl")}
    result = run(*(word.format(**values) for word in COMMANDS[command]))
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    assert words in errors[0]
    assert "Traceback" not in result.stderr
    assert "policy" not in errors[0].replace("adapter_of_a_policy", "").replace("DPO policy", "")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("kind", ["process_model", "encoder", "scalar"])
def test_models_of_texts_judge(world, tmp_path, kind):
    values = {"model": str(world / kind), "root": str(world),
              "policy": str(world / "language_model"), "out": str(tmp_path / "out")}
    result = run(*(word.format(**values) for word in COMMANDS["generation"]), "--device", "cpu")
    assert result.exit_code == 0, result.output
    [row] = json.loads((tmp_path / "out" / "summary.json").read_text())["methods"].values()
    assert isinstance(row["reward"], float)


@pytest.mark.parametrize("command", ["goal-state", "inspect", "responses", "generation", "score"])
def test_a_kind_that_is_named(world, tmp_path, command):
    """And an option that it lacks, in every command that takes kinds."""
    values = {"model": str(world / "language_model"), "root": str(world),
              "policy": str(world / "language_model"), "out": str(tmp_path / "out.jsonl")}
    words = [word.format(**values) for word in COMMANDS[command]]
    result = run(*words, "--kind", "nothing")
    assert result.exit_code == 2
    assert "nothing" in result.stderr.splitlines()[-1]
    result = run(*words, "--kind", "implicit", "--kind-option", "reference_free=maybe",
                 "--device", "cpu")
    assert result.exit_code == 2
    assert "reference" in result.stderr.splitlines()[-1]
    kind = ("farma",) if command == "inspect" else ("farma", "--device", "cpu")
    if command != "generation":
        result = run(*words, "--kind", *kind)
        assert result.exit_code == 0, result.output


def test_the_policy_cannot_be_read(world, tmp_path):
    """What the tests above rely on."""
    values = {"model": str(world / "scalar"), "root": str(world), "out": str(tmp_path / "o.jsonl"),
              "policy": str(world / "policy")}
    result = run(*(word.format(**values) for word in COMMANDS["args"]))
    assert result.exit_code == 2
    assert "policy cannot be loaded" in result.stderr.splitlines()[-1]


def test_doctor_says_so_too(world):
    for kind, words in (("language_model", "rewardsteer train"), ("pickled", "convert it once"),
                        ("headless", "head")):
        result = run("doctor", world / kind, "--device", "cpu")
        assert result.exit_code == 1, result.output
        assert "FAULT" in result.stdout
        assert words in " ".join(result.stdout.split())
