"""Names on the Hugging Face hub, from a cache laid out as huggingface_hub lays it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.api.conftest import make_folders

COMMITS = {"main": "a" * 40, "older": "b" * 40}
# What there is, what there is not, and what they say, in one process of its own: the place of the
# cache is read once.
CODE = """
import json
from rewardsteer import RewardModel, RewardsteerError, Steerer, evaluate
rm = RewardModel.from_pretrained("acme/bt-reward", device="cpu")
older = RewardModel.from_pretrained("acme/bt-reward", revision="older", device="cpu")
steerer = Steerer("acme/policy", "acme/bt-reward", method="best_of_n", n=2, device="cpu", seed=0)
answer = steerer.generate("1+1=", max_new_tokens=3)[0]
print(json.dumps({
    "reward": rm.score("1+1=", "2"), "older": older.score("1+1=", "2"), "text": answer.text,
    "evaluated": evaluate("acme/bt-reward", [
        {"prompt": "1+1=", "chosen": "2", "rejected": "3"}])["all"]["count"],
}))
try:
    RewardModel.from_pretrained("acme/nothing")
except RewardsteerError as error:
    print(error)
"""


def lay(cache, repository, folders):
    """A repository in the cache: blobs, snapshots of commits that link to them, and refs."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    for branch, folder in folders.items():
        snapshot = root / "snapshots" / COMMITS[branch]
        snapshot.mkdir(parents=True)
        (root / "refs" / branch).write_text(COMMITS[branch])
        for file in folder.iterdir():
            if file.is_file():
                blob = root / "blobs" / f"{branch}-{file.name}"
                shutil.copy(file, blob)
                (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    folders = make_folders(root / "folders")
    lay(root / "cache", "acme/bt-reward", {"main": folders / "bt", "older": folders / "farma"})
    lay(root / "cache", "acme/policy", {"main": folders / "policy"})
    return root


@pytest.fixture(scope="module")
def printed(hub):
    environment = os.environ | {"HF_HUB_CACHE": str(hub / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_models_are_found_by_name_and_revision(hub, printed):
    from rewardsteer import RewardModel

    found = json.loads(printed[0])
    here = {
        name: RewardModel.from_pretrained(hub / "folders" / name, device="cpu").score("1+1=", "2")
        for name in ("bt", "farma")
    }
    assert found["reward"] == pytest.approx(here["bt"], abs=1e-6)
    assert found["older"] == pytest.approx(here["farma"], abs=1e-6)
    assert here["bt"] != pytest.approx(here["farma"], abs=1e-3)
    assert found["evaluated"] == 1


def test_a_name_that_is_not_in_the_cache_is_one_sentence(printed):
    _, said = printed
    assert said.startswith("Expected a model folder at acme/nothing, there is none; nor can")
