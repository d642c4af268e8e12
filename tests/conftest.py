import gc
import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_finish():
    """Imported modules and collected tests stay to the end of the process.

    Every training collects garbage a few times. To look through these millions of objects took
    longer than the rest of a tiny training.
    """
    gc.collect()
    gc.freeze()
