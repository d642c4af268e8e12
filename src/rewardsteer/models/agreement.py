"""Whether two ways of computing the same states agree."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


# What architectures raise when they are called in a way that they do not know.
REFUSALS = (TypeError, ValueError, RuntimeError, LookupError, AttributeError)


def working_dtype(module: Any) -> torch.dtype:
    """The type that a model's products are computed in: autocast's where it is on, and that of
    4-bit layers, whose other weights may be wider."""
    kind: str = module.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    quantized: Any = getattr(module.config, "quantization_config", None)
    four_bits = getattr(quantized, "load_in_4bit", False)
    dtype: torch.dtype = quantized.bnb_4bit_compute_dtype if four_bits else module.dtype
    return dtype


@torch.no_grad()
def disagreement(
    fast: Callable[[int], Tensor], plain: Callable[[int], Tensor], dtype: torch.dtype,
    what: str = "the fast path",
) -> str | None:
    """Why a fast path does not give the results of a plain forward pass on two texts, as a
    sentence that follows the model's name; None if it does.

    Args:
        fast, plain: the results for text 0 or 1. The texts differ in tokens that a faulty fast path
            would lose, or would attend to by mistake.
        dtype: that the model computes in.
        what: the fast path's name.
    """
    expected = plain(0).float(), plain(1).float()
    try:
        found = fast(0).float(), fast(1).float()
    except REFUSALS as error:
        logger.debug("The model refuses a fast path: %s", error)
        return f"refuses {what} ({error})"
    if any(one.shape != other.shape for one, other in zip(found, expected, strict=True)):
        return f"gives other shapes under {what}"
    return None if same_changes(found, expected, dtype) else f"gives other states under {what}"


def same_states(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two tensors of one shape differ by rounding alone.

    Half precision rounds; attending to a wrong token, or a wrong position, changes far more.

    Args:
        found, expected: in float32 or wider.
        dtype: that the model computes in.
    """
    allowed = 1e-3 if dtype in (torch.float32, torch.float64) else 5e-2
    return bool((found - expected).norm() <= allowed * expected.norm())


def same_changes(
    found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], dtype: torch.dtype
) -> bool:
    """Whether the results for two texts, and the difference between the two, agree up to rounding.

    In a small model with small weights, tokens change the results little, and `same_states` alone
    might take an error for rounding.

    Args:
        found, expected: results for the first and for the second text.
        dtype: that the model computes in.
    """
    if not all(same_states(one, other, dtype) for one, other in zip(found, expected, strict=True)):
        return False
    ours, theirs = found[0] - found[1], expected[0] - expected[1]
    exact = dtype in (torch.float32, torch.float64)
    rounding = (1e-5 if exact else 5e-3) * float(expected[0].norm())
    return float((ours - theirs).norm()) <= max(0.5 * float(theirs.norm()), rounding)
