"""Other libraries' chatter, turned down for commands that tell their own story."""

import logging


def quiet_libraries() -> None:
    """Silence loading reports and progress bars of transformers and datasets, not their errors; let
    our own messages through to standard error."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rewardsteer").setLevel(logging.INFO)
