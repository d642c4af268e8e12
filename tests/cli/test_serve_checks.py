"""`rewardsteer serve` and `score` refuse what is wrong before anything heavy is imported."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import DataError
from rewardsteer.goals.files import load_goals
from tests.chat import save_policy
from tests.cli.kinds_of_models import process_model
from tests.cli.test_generate_command import save_reward_model
from tests.fakes import CHARACTERS, character_tokenizer, save_tiny

_SERVE = """
import sys
from rewardsteer.cli.main import app
try:
    app(["serve", *sys.argv[1:]])
except SystemExit as ended:
    assert ended.code == 2
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(("options", "said"), [
    (("--model", "{here}", "--port", "70000"), "should be less than or equal to 65535"),
    (("--model", "{here}", "--host", "0.0.0.0"), "give it an API key"),
    (("--model", "{here}", "--api-key-file", "{here}/absent"), "cannot be read"),
    (("--model", "{here}/absent"), "Expected a model folder"),
    ((), "pass --model or --reward-model"),
])
def test_serve_answers_before_torch(options, said, tmp_path):
    words = [word.format(here=tmp_path) for word in options]
    done = subprocess.run(
        [sys.executable, "-c", _SERVE, *words], capture_output=True, text=True, check=True
    )
    assert said in " ".join(done.stderr.split())
    assert "Loading" not in done.stderr


@pytest.mark.parametrize(("options", "said"), [
    (("--weight", "2"), "--weight is not used by --method none"),
    (("--weight", "2", "--method", "majority_vote"), "not used by --method majority_vote"),
    (("--weight", "2", "--reward-model", "{here}/rm"), "not used by --method best_of_n"),
])
def test_serve_refuses_a_weight_that_nothing_uses(options, said, tmp_path):
    save_policy(tmp_path / "policy", "qwen")
    if "--reward-model" in options:
        process_model(tmp_path / "rm")
    words = [word.format(here=tmp_path) for word in options]
    done = CliRunner().invoke(app, [
        "serve", "--model", str(tmp_path / "policy"), "--port", "0", *words
    ])
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_an_array_is_no_goal_file(tmp_path):
    place = tmp_path / "goal.npy"
    place.write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"is an array; a goal file is .* --import-npy .*goal\.npy"):
        load_goals(place)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    base = save_tiny(root / "policy", seed=1)
    save_tiny(root / "small", "gpt2", seed=2)
    for head in ("scalar", "vocabulary"):
        save_reward_model(base, root / head, head)
    for name, kind in (("strange", "llama"), ("strange-reward", "vocabulary")):
        if kind == "vocabulary":
            save_reward_model(base, root / name, kind)
        else:
            save_tiny(root / name, kind)
        character_tokenizer(CHARACTERS[::-1]).save_pretrained(root / name)
    return root


def serve(models, *options):
    words = [str(models / one) if (models / one).exists() else one for one in options]
    return CliRunner().invoke(app, ["serve", "--model", str(models / "policy"), "--port", "0",
                                    *words])


def test_second_models_are_served(models, monkeypatch):
    served = []
    monkeypatch.setattr(
        "rewardsteer.serving.run.run", lambda service, place, **_: served.append(service.served)
    )
    done = serve(models, "--reward-model", "scalar", "--draft-model", "small", "--gate-model",
                 "vocabulary")
    assert done.exit_code == 0, done.output
    assert {"rsd", "gsi"} <= set(served[0].methods.names)
    assert served[0].drafter.policy.config.model_type == "gpt2"
    gated = DecodingConfig(method="args", top_k=4, gate="kl", gate_threshold=0.1)
    assert served[0].methods.build(gated).scout.scorer.name == str(models / "vocabulary")
    assert served[0].methods.build(gated.model_copy(update={"gate": "first"})).scout is None


@pytest.mark.parametrize(("options", "said"), [
    (("--draft-model", "small"), "--draft-model is for methods with a policy and a reward model"),
    (("--draft-model", "strange", "--reward-model", "scalar"), "must have one vocabulary"),
    (("--gate-model", "scalar", "--reward-model", "scalar"), "vocabulary head"),
    (("--gate-model", "strange-reward", "--reward-model", "scalar"), "in the policy's tokens"),
    (("--draft-model", "absent/of/here", "--reward-model", "scalar"), "Expected a model folder"),
    (("--draft-model", "small", "--engine", "vllm"),
     "serve with --engine transformers, or with --engine openai in front of a router (--base-url)"),
    (("--gate-model", "vocabulary", "--reward-model", "vocabulary", "--engine", "vllm"),
     "--gate-model is not for --engine vllm"),
])
def test_second_models_that_cannot_be_served(models, monkeypatch, options, said):
    monkeypatch.setattr(
        "rewardsteer.decoding.policy.load_policy", lambda *_, **__: pytest.fail("it was loaded")
    )
    done = serve(models, *options)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split())
