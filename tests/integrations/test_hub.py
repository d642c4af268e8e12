"""Publishing, against a local server that speaks the hub's own protocol."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from rewardsteer.cli.main import app
from rewardsteer.errors import CheckpointError, ConfigError, OutputError
from rewardsteer.integrations.hub import contents, push


class Hub:
    """Just enough of the hub: repositories, and commits of files inside the request."""

    def __init__(self):
        self.private, self.files, self.tokens, self.refuse = {}, {}, set(), False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, content, status=200):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                name = self.path.removeprefix("/api/models/").partition("?")[0]
                name = name.removesuffix("/revision/main")
                self.answer({"id": name, "private": hub.private[name], "siblings": [],
                             "sha": "0" * 40})

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hub.tokens.add(self.headers["Authorization"])
                if hub.refuse:
                    self.answer({"error": "no quota left"}, 403)
                elif self.path == "/api/repos/create":
                    asked = json.loads(body)
                    name = f"{asked['organization']}/{asked['name']}"
                    known = name in hub.private
                    private = asked.get("private", asked.get("visibility") == "private")
                    hub.private.setdefault(name, private)
                    self.answer({"url": f"{hub.address}/{name}"}, 409 if known else 200)
                elif self.path == "/api/validate-yaml":
                    assert "reward-model" in json.loads(body)["content"]
                    self.answer({"errors": [], "warnings": []})
                elif "/preupload/" in self.path:
                    files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                             for f in json.loads(body)["files"]]
                    self.answer({"files": files})
                elif "/commit/" in self.path:
                    for line in map(json.loads, body.splitlines()):
                        if line["key"] == "file":
                            value = line["value"]
                            hub.files[value["path"]] = base64.b64decode(value["content"])
                    address = f"{hub.address}/me/x/commit/1"
                    self.answer({"commitUrl": address, "commitOid": "1" * 40})
                else:
                    self.answer({"error": self.path}, 404)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def api(self):
        return HfApi(endpoint=self.address, token="hf_test")


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def untidy_folder(reward_folder, tmp_path):
    """A checkpoint with things in it that concern nobody."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in reward_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name in ("optimizer.pt", "pytorch_model.bin", "answers.jsonl", ".secret"):
        (folder / name).write_text("private")
    (folder / "checkpoint-1").mkdir()
    return folder


def test_private_by_default_and_whole(hub, untidy_folder):
    address = push(untidy_folder, "me/rewards", api=hub.api())
    assert address.endswith("me/rewards")
    assert hub.private == {"me/rewards": True}
    assert hub.tokens == {"Bearer hf_test"}
    for name, content in hub.files.items():
        assert (untidy_folder / name).read_bytes() == content
    assert {"README.md", "rewardsteer.json", "model.safetensors", "config.json",
            "tokenizer.json"} <= set(hub.files)
    assert not {name for name in hub.files if "private" in str(hub.files[name])}
    push(untidy_folder, "me/rewards", api=hub.api())  # a second time into the same place


def test_a_public_repository_must_be_asked_for(hub, reward_folder):
    hub.private["me/open"] = False
    with pytest.raises(ConfigError, match=r"is public; pass public=True \(--public\)"):
        push(reward_folder, "me/open", api=hub.api())
    assert not hub.files
    push(reward_folder, "me/open", public=True, api=hub.api())
    assert hub.files
    push(reward_folder, "me/new", public=True, api=hub.api())
    assert hub.private["me/new"] is False


def test_refusals(hub, reward_folder, tmp_path):
    with pytest.raises(ConfigError, match="no name of a repository"):
        push(reward_folder, "a/b/c", api=hub.api())
    hub.refuse = True
    with pytest.raises(OutputError, match="did not take"):
        push(reward_folder, "me/rewards", api=hub.api())
    nowhere = HfApi(endpoint="http://127.0.0.1:9", token="hf_test")
    with pytest.raises(OutputError, match="did not take"):
        push(reward_folder, "me/rewards", api=nowhere)
    with pytest.raises(CheckpointError, match="there is none"):
        push(tmp_path / "nothing", "me/rewards", api=hub.api())


def test_without_weights(untidy_folder):
    (untidy_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="found none"):
        contents(untidy_folder)


def test_command(untidy_folder, monkeypatch):
    def no_hub(*_, **__):
        raise AssertionError("a dry run asks nobody")

    monkeypatch.setattr("rewardsteer.integrations.hub.push", no_hub)
    result = CliRunner().invoke(app, ["push", str(untidy_folder), "me/rewards", "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "model.safetensors" in result.stdout
    assert "optimizer.pt" not in result.stdout
    left_out = next(line for line in result.output.splitlines() if line.startswith("left out"))
    assert set(left_out.removeprefix("left out: ").split(", ")) == {
        "optimizer.pt", "pytorch_model.bin", "answers.jsonl", ".secret", "checkpoint-1"}
    assert "me/rewards, private" in result.output
