"""Other libraries' chatter, turned down for commands that tell their own story."""


def quiet_libraries() -> None:
    """Silence loading reports and progress bars of transformers and datasets, not their errors."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
