"""What to say when memory runs out while generating, wherever it does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.errors import ConfigError
from rewardsteer.models.prefix_reader import PrefixReader

# How torch's allocator on a CPU says it; it has no class of its own for that.
_CPU = "can't allocate memory"


def out_of_memory(error: Exception) -> bool:
    """Whether this is what torch raises when memory runs out."""
    return isinstance(error, torch.OutOfMemoryError) or _CPU in str(error)


@contextmanager
def memory_told(config: DecodingConfig, reader: PrefixReader | None = None) -> Iterator[None]:
    """Name the settings to lower, and how many rows a reader held.

    Raises:
        ConfigError: out of memory, in the policy or in the reward model.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        held = "" if reader is None else f" with {len(reader.tokens)} rows together"
        raise ConfigError(
            f"Out of memory{held}; lower batch_size (now {config.batch_size}), max_new_tokens (now "
            f"{config.max_new_tokens}) or, where there are candidates or samples, top_k (now "
            f"{config.top_k}) and n (now {config.n}). What was finished before is kept."
        ) from error
