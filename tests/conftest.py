import gc
import os

import pytest
from hypothesis import settings

from tests.warm import warm_commands

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: at the end of a run on several cores none is idle long."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """Imported modules and collected tests stay to the end of the process.

    Every training collects garbage a few times. To look through these millions of objects took
    longer than the rest of a tiny training.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    """A folder with ``rewardsteer`` and ``python``, which start in no time."""
    with warm_commands(tmp_path_factory.mktemp("warm")) as commands:
        yield commands
