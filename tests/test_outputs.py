"""Files appear whole, for whoever the umask lets read them."""

import pytest

from rewardsteer.errors import OutputError
from rewardsteer.outputs import write_text


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
