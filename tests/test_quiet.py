"""What reaches the terminal: our messages and errors; the rest goes to a log file."""

import inspect
import io
import logging
import subprocess
import sys
import threading
import warnings

import pytest

from rewardsteer import log_handlers, quiet

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


def test_settings_of_transformers_are_checked_without_a_word():
    pytest.importorskip("bitsandbytes")
    code = (
        "from rewardsteer.training.trainer_settings import check_trainer\n"
        "check_trainer({'optim': 'adamw_torch'})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture
def diagnosis():
    handler = log_handlers.Diagnosis()
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


@quiet.quiet_calls
class Talker:
    """Calls that make libraries speak, as a Python program calls them."""

    def speak(self, level=logging.WARNING):
        for name in ("transformers.modeling", "datasets.load", "huggingface_hub", "DeepSpeed"):
            logging.getLogger(name).log(level, "from %s", name)

    @classmethod
    def made(cls):
        cls().speak()
        return cls

    def speak_thrice(self):
        for number in range(3):
            self.speak()
            yield number


def bars():
    import datasets
    import huggingface_hub.utils
    from transformers.utils import logging as theirs

    return (
        theirs.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled(),
        not huggingface_hub.utils.are_progress_bars_disabled(),
    )


@pytest.fixture
def spoken(monkeypatch):
    """A program that set up nothing: what the handlers of the libraries themselves write."""
    import datasets
    from transformers.utils import logging as theirs

    # A command that another test ran in this process has set the variable that these read.
    for module in (datasets.config, sys.modules["datasets.utils.tqdm"]):
        monkeypatch.setattr(module, "HF_DATASETS_DISABLE_PROGRESS_BARS", None)
    datasets.enable_progress_bars()
    theirs.get_logger()
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    stream = io.StringIO()
    for name in quiet._TALKATIVE:
        library = logging.getLogger(name)
        monkeypatch.setattr(library, "handlers", [logging.StreamHandler(stream)])
        monkeypatch.setattr(library, "level", logging.WARNING)
        monkeypatch.setattr(library, "propagate", False)
        monkeypatch.setattr(library, "filters", [])
    theirs.enable_progress_bar()
    return stream


def test_libraries_are_quiet_in_our_calls_alone(spoken):
    talker = Talker()
    talker.speak()
    Talker.made()
    assert spoken.getvalue() == ""
    logging.getLogger("transformers.modeling").warning("after the call")
    assert spoken.getvalue() == "after the call\n"
    assert not [one for name in quiet._TALKATIVE for one in logging.getLogger(name).filters]


def test_a_program_without_logging_reads_no_warning_of_any_library(spoken, monkeypatch, capsys):
    @quiet.quiet_calls
    def call(level):
        logging.getLogger("bitsandbytes.backends").log(level, "install kernels")
        logging.getLogger("rewardsteer.x").warning("ours")

    # pytest adds handlers after the fixtures are made.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    call(logging.WARNING)
    assert capsys.readouterr().err == "ours\n"
    call(logging.ERROR)
    logging.getLogger("bitsandbytes.backends").warning("after the call")
    assert capsys.readouterr().err == "install kernels\nours\nafter the call\n"


def test_errors_and_what_a_program_asked_for_are_heard(spoken):
    Talker().speak(logging.ERROR)
    assert len(spoken.getvalue().splitlines()) == len(quiet._TALKATIVE)
    logging.getLogger("transformers").setLevel(logging.INFO)
    Talker().speak()
    assert spoken.getvalue().count("from transformers.modeling") == 2
    assert spoken.getvalue().count("from datasets") == 1


def test_a_programs_own_handler_hears_everything(spoken, caplog):
    logging.getLogger().addHandler(caplog.handler)
    logging.getLogger("transformers").propagate = True
    Talker().speak()
    assert "from transformers.modeling" in caplog.text
    assert spoken.getvalue() == ""


def test_a_library_that_is_imported_within_a_call(spoken):
    """As DeepSpeed, whose logger gets its handler and its level then, and speaks at once."""
    deepspeed = logging.getLogger("DeepSpeed")
    handler, *_ = deepspeed.handlers
    deepspeed.handlers = []

    @quiet.quiet_calls
    def imports():
        deepspeed.addHandler(handler)
        deepspeed.setLevel(logging.WARNING)
        deepspeed.warning("Setting accelerator to CPU")

    imports()
    assert spoken.getvalue() == ""
    deepspeed.warning("later")
    assert spoken.getvalue() == "later\n"


def test_bars_are_off_in_our_calls_but_those_of_downloads(spoken):
    seen = []
    call = quiet.quiet_calls(lambda: seen.append(bars()))
    assert bars() == (True, True, True)
    call()
    assert seen == [(False, False, True)]
    assert bars() == (True, True, True)


def test_bars_that_a_program_turned_off_stay_off(spoken):
    import datasets
    import huggingface_hub.utils

    call = quiet.quiet_calls(lambda: None)
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
    try:
        call()
        assert bars() == (True, False, False)
    finally:
        datasets.enable_progress_bars()
        huggingface_hub.utils.enable_progress_bars()


def test_a_generator_is_quiet_while_it_makes_an_item(spoken):
    items = Talker().speak_thrice()
    for number, item in enumerate(items):
        assert item == number
        logging.getLogger("datasets").warning("the program")
        if number == 1:
            items.close()
    assert spoken.getvalue() == "the program\n" * 2


def test_calls_within_calls_and_in_threads_end_once(spoken):
    inner = quiet.quiet_calls(lambda: None)
    begun, end = threading.Event(), threading.Event()

    @quiet.quiet_calls
    def outer():
        inner()
        begun.set()
        assert end.wait(10)
        Talker().speak()

    thread = threading.Thread(target=outer)
    thread.start()
    assert begun.wait(10)
    inner()
    assert bars()[0] is False
    end.set()
    thread.join()
    assert spoken.getvalue() == ""
    assert bars()[0] is True


def test_a_call_that_fails_ends_the_quiet(spoken):
    @quiet.quiet_calls
    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert bars() == (True, True, True)
    logging.getLogger("datasets").warning("heard")
    assert spoken.getvalue() == "heard\n"


def test_a_command_keeps_its_own_rules(spoken, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [quiet._DIAGNOSIS])
    quiet.quiet_calls(lambda: logging.getLogger("datasets").warning("to the log"))()
    assert spoken.getvalue() == "to the log\n"


def test_decorated_functions_keep_their_names_and_signatures():
    import rewardsteer

    assert rewardsteer.train.__name__ == "train"
    assert "output_dir" in inspect.signature(rewardsteer.train).parameters
