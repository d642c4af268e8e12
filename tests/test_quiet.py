"""What reaches the terminal: our messages and errors; the rest goes to a log file."""

import logging
import subprocess
import sys
import warnings

import pytest

from rewardsteer import quiet

CODE = """
import logging, sys, warnings
from pathlib import Path
from rewardsteer.quiet import keep_log, quiet_libraries

quiet_libraries()
logging.getLogger("rewardsteer.x").info("ours")
logging.getLogger("rewardsteer.x").debug("our diagnosis")
logging.getLogger("bitsandbytes.cpu").warning("install kernels")
logging.getLogger("transformers.modeling").warning("weights were not used")
logging.getLogger("elsewhere").error("it broke")
warnings.warn("deprecated")
# As DeepSpeed makes its logger, once it is imported: on standard output.
deepspeed = logging.getLogger("DeepSpeed")
deepspeed.propagate = False
deepspeed.addHandler(logging.StreamHandler(sys.stdout))
deepspeed.warning("Setting accelerator to CPU")
from transformers.utils import logging as theirs
assert not theirs.is_progress_bar_enabled()
keep_log(Path(sys.argv[1]))
logging.getLogger("bitsandbytes").warning("later")
"""


def test_only_ours_and_errors_reach_the_terminal(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.splitlines() == ["ours", "it broke"]
    log = (tmp_path / quiet.LOG).read_text()
    for line in ("ours", "our diagnosis", "install kernels", "weights were not used", "it broke",
                 "deprecated", "Setting accelerator to CPU", "later"):
        assert log.count(line) == 1, line


@pytest.fixture
def diagnosis():
    handler = quiet._Diagnosis()
    logger = logging.getLogger("diagnosis")
    logger.propagate = False
    logger.addHandler(handler)
    yield handler, logger
    logger.removeHandler(handler)


def test_the_oldest_go_where_there_is_no_file(diagnosis, tmp_path):
    handler, logger = diagnosis
    for number in range(1200):
        logger.warning("line %d", number)
    handler.keep(tmp_path / "log.txt")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert len(lines) == 1000
    assert lines[-1].endswith("line 1199")


def test_a_log_that_cannot_be_written_stops_nothing(diagnosis, tmp_path):
    handler, logger = diagnosis
    handler.keep(tmp_path / "absent" / "log.txt")
    logger.warning("goes on")


def test_keep_log_makes_no_file_for_a_program_that_set_up_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    quiet.keep_log(tmp_path)
    assert not list(tmp_path.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet.keep_log(tmp_path)
