"""What a model can do is tried out on a few tokens: whether that gave what plain reading gives."""

import torch
from torch import Tensor


def same_states(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two tensors of one shape differ by rounding alone.

    Half precision differs by rounding; a token that is seen though it should not be, or stands in
    another place, differs by far more.

    Args:
        found, expected: in float32 or wider.
        dtype: that the model computes in.
    """
    allowed = 1e-3 if dtype in (torch.float32, torch.float64) else 5e-2
    return bool((found - expected).norm() <= allowed * expected.norm())
