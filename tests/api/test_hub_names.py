"""Names on the Hugging Face hub, from a cache laid out as huggingface_hub lays it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.api.conftest import make_folders

COMMITS = {"main": "a" * 40, "older": "b" * 40}
CODE = """
import json
from rewardsteer import RewardModel, Steerer, evaluate
rm = RewardModel.from_pretrained("acme/bt-reward", device="cpu")
older = RewardModel.from_pretrained("acme/bt-reward", revision="older", device="cpu")
steerer = Steerer("acme/policy", "acme/bt-reward", method="best_of_n", n=2, device="cpu", seed=0)
answer = steerer.generate("1+1=", max_new_tokens=3)[0]
print(json.dumps({
    "reward": rm.score("1+1=", "2"), "older": older.score("1+1=", "2"), "text": answer.text,
    "evaluated": evaluate("acme/bt-reward", [
        {"prompt": "1+1=", "chosen": "2", "rejected": "3"}])["all"]["count"],
}))
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


def run(hub, code):
    environment = os.environ | {"HF_HUB_CACHE": str(hub / "cache"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_models_are_found_by_name_and_revision(hub):
    from rewardsteer import RewardModel

    done = run(hub, CODE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    here = {
        name: RewardModel.from_pretrained(hub / "folders" / name, device="cpu").score("1+1=", "2")
        for name in ("bt", "farma")
    }
    assert found["reward"] == pytest.approx(here["bt"], abs=1e-6)
    assert found["older"] == pytest.approx(here["farma"], abs=1e-6)
    assert here["bt"] != pytest.approx(here["farma"], abs=1e-3)
    assert found["evaluated"] == 1


def test_a_name_that_is_not_in_the_cache_is_one_sentence(hub):
    done = run(hub, "import rewardsteer\ntry:\n    rewardsteer.RewardModel.from_pretrained("
                    "'acme/nothing')\nexcept rewardsteer.RewardsteerError as e:\n    print(e)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Expected a model folder at acme/nothing, there is none; nor can")
    assert len(done.stdout.strip().splitlines()) == 1
