"""`rewardsteer serve` and `score` refuse what is wrong before anything heavy is imported."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.errors import DataError
from rewardsteer.goals.files import load_goals
from tests.chat import save_policy
from tests.cli.kinds_of_models import process_model

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
