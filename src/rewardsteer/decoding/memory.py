"""Failures of engines, out of memory among them. No torch here: the server's errors read it."""

from rewardsteer.errors import ConfigError

# How torch says it where it has no class of its own for it: on CPUs, on Macs, and when CUDA's
# library of matrix products starts.
_TEXTS = ("can't allocate memory", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class EngineError(Exception):
    """An engine cannot go on, for any prompt; its cause says why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def out_of_memory(error: BaseException) -> bool:
    """Whether this is what torch, or Python, raises when memory runs out."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(text in str(error) for text in _TEXTS)


def translate_oom(error: Exception, remedy: str) -> Exception:
    """The error to report for a row that failed alone: where memory ran out, what to do."""
    if not out_of_memory(error):
        return error
    translated = ConfigError(f"Out of memory {remedy}.")
    translated.__cause__ = error
    return translated
