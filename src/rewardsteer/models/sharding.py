"""Parameters that DeepSpeed's ZeRO-3 shards over processes when a model is loaded."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from torch import nn


def is_zero3_sharded(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 shards a parameter, so that it looks empty in this process."""
    return hasattr(parameter, "ds_id")


def gathered(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[object]:
    """Within it the parameters are whole; changes by the first process are kept by all.

    Every process must enter it.
    """
    spread = [parameter for parameter in parameters if is_zero3_sharded(parameter)]
    if not spread:
        return nullcontext()
    import deepspeed

    context: AbstractContextManager[object] = deepspeed.zero.GatheredParameters(
        spread, modifier_rank=0
    )
    return context
