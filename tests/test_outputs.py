"""Files appear whole, for whoever the umask lets read them."""

import subprocess
import sys

import pytest

from rewardsteer.errors import OutputError
from rewardsteer.outputs import unfinished_folder, write_text


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
