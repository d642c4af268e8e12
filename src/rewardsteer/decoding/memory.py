"""What to say when memory runs out while generating, wherever it does."""

import torch

from rewardsteer.decoding.config import DecodingConfig
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


def told(error: Exception, config: DecodingConfig) -> Exception:
    """The error of a row that failed alone: where memory ran out, the settings to lower."""
    if not out_of_memory(error):
        return error
    wrapped = ConfigError(
        f"Out of memory with one row alone; lower max_new_tokens (now {config.max_new_tokens}), "
        f"where there are candidates top_k (now {config.top_k}), or shorten the prompt."
    )
    wrapped.__cause__ = error
    return wrapped
