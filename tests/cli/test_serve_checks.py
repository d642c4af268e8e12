"""`rewardsteer serve` and `score` refuse what is wrong before anything heavy is imported."""

import subprocess
import sys

import pytest

from rewardsteer.errors import DataError
from rewardsteer.goals.files import load_goals

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
    (("--model", "{here}", "--port", "70000"), "A port is from 0 to 65535"),
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


def test_an_array_is_no_goal_file(tmp_path):
    place = tmp_path / "goal.npy"
    place.write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"is an array; a goal file is .* --import-npy .*goal\.npy"):
        load_goals(place)
