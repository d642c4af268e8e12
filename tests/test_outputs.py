"""Files appear whole, for whoever the umask lets read them."""

import json
import os
import signal
import subprocess
import sys

import pytest

from rewardsteer.configuration import read_yaml
from rewardsteer.decoding.requests import read_requests
from rewardsteer.doctor.samples import read_samples
from rewardsteer.errors import DataError, OutputError
from rewardsteer.evaluation.correctness.scored_files import load_scored
from rewardsteer.outputs import (
    claim_folder,
    claimed_folder,
    read_json,
    read_jsonl,
    unfinished_folder,
    write_text,
)


def test_a_written_file_has_the_mode_of_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "text")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "ours").read_text() == "text"


def test_what_cannot_be_replaced_stays_and_nothing_lies_beside_it(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "folder", "text")
    assert [place.name for place in tmp_path.iterdir()] == ["folder"]


HOLDS = """
import sys, time
from pathlib import Path
from rewardsteer.outputs import unfinished_folder
with unfinished_folder(Path(sys.argv[1])) as held:
    (held / "rows").write_text("x")
    print(held.name, flush=True)
    time.sleep(600)
"""


def test_what_killed_processes_left_goes_and_what_others_hold_stays(tmp_path):
    out = tmp_path / "out"
    (tmp_path / ".out.settings").mkdir()
    (tmp_path / ".out2.unfinished-x").mkdir()
    command = [sys.executable, "-c", HOLDS, str(out)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second,
    ):
        try:
            killed, living = (one.stdout.readline().strip() for one in (first, second))
            first.kill()
            first.wait()
            assert (tmp_path / killed / "rows").exists()
            with unfinished_folder(out) as ours:
                assert not (tmp_path / killed).exists()
                assert (tmp_path / living / "rows").exists()
            assert not ours.exists()
        finally:
            first.kill()
            second.kill()
    with unfinished_folder(out):
        pass
    assert sorted(place.name for place in tmp_path.iterdir()) == [
        ".out.settings", ".out2.unfinished-x",
    ]


ROW = {"prompt": "a", "completion": "b\u2028c", "is_correct": True}


CLAIMS = """
import os, sys, time
from pathlib import Path
from rewardsteer.outputs import claimed_folder

with claimed_folder(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "begun").touch()
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("again", [{"resume": True}, {"overwrite": True}])
def test_a_folder_that_another_process_writes_to_is_refused_until_that_ends(tmp_path, again):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIMS, str(out)], stdout=subprocess.PIPE, text=True
    )
    orphan = int(process.stdout.readline())
    try:
        with pytest.raises(OutputError, match="Another process is writing to"):
            claim_folder(out, **again)
        assert (out / "begun").exists()
        process.kill()
        process.wait()
        # A fork of it lives on, as workers of a killed run may, and holds nothing.
        os.kill(orphan, 0)
        with claimed_folder(out, **again):
            assert (out / "begun").exists() == ("resume" in again)
    finally:
        process.kill()
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.parametrize("read", [
    read_requests, read_samples, lambda place: [row for _, row in read_jsonl(place)],
    load_scored,
])
@pytest.mark.parametrize("form", ["utf-8-sig", "utf-8"])
def test_files_of_other_editors_read_the_same(tmp_path, read, form):
    """A mark before the first line, other line ends, and signs within texts that some functions
    take for line ends."""
    plain, other = tmp_path / "rows.jsonl", tmp_path / "other" / "rows.jsonl"
    other.parent.mkdir()
    lines = [json.dumps(ROW | {"sample": one}, ensure_ascii=False) for one in "ab"]
    plain.write_bytes("\n".join(lines).encode())
    other.write_bytes("\r\n\r\n".join(lines).encode(form))
    if read is read_requests:
        assert [one.prompt for one in read(other)] == [one.prompt for one in read(plain)]
    else:
        assert read(other) == read(plain)


def test_settings_may_begin_with_a_mark(tmp_path):
    (tmp_path / "a.yaml").write_bytes("a: 1".encode("utf-8-sig"))
    (tmp_path / "a.json").write_bytes('{"a": 1}'.encode("utf-8-sig"))
    assert read_yaml(tmp_path / "a.yaml") == read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("read", [read_requests, read_samples])
def test_other_encodings_are_a_sentence(tmp_path, read):
    (tmp_path / "rows.jsonl").write_bytes(json.dumps(ROW).encode("utf-16"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        read(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(("prompt", "said"), [
    (None, "expected a field 'prompt', found null"), ([], "an empty list"), (3, "got a number"),
    ([{"role": "user", "content": None}], "in message 1 of prompt 'content' is null"),
    ([{"role": "user", "content": "a"}, 3], "message 2 of prompt is a number"),
])
def test_a_prompt_is_text_or_messages(tmp_path, prompt, said):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": prompt}))
    with pytest.raises(DataError, match=said):
        read_requests(tmp_path / "rows.jsonl")
