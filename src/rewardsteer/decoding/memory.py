"""Failures of engines, out of memory among them."""

import torch

from rewardsteer.errors import ConfigError

# How torch's allocator on a CPU says it; it has no class of its own for that.
_CPU = "can't allocate memory"


class EngineError(Exception):
    """An engine cannot go on, for any prompt; its cause says why.

    Args:
        cause: what was raised.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def out_of_memory(error: BaseException) -> bool:
    """Whether this is what torch, or Python, raises when memory runs out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU in str(error)


def translate_oom(error: Exception, remedy: str) -> Exception:
    """The error to report for a row that failed alone: where memory ran out, what to do."""
    if not out_of_memory(error):
        return error
    translated = ConfigError(f"Out of memory {remedy}.")
    translated.__cause__ = error
    return translated
