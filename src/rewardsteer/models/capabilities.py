"""What a model can do, found by trying a few tokens once: one cache and one measure for all trials.

Architectures are not listed: a fast path is taken where it gives what plain reading gives.
"""

import logging
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Of each module, by question, attention and type of its numbers.
_known: "weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], Any]]" = weakref.WeakKeyDictionary()


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


def capability(module: Any, question: str, trial: Callable[[], T]) -> T:
    """The answer to a question about a model: of the trial, or as it was known before.

    Args:
        module: the model or backbone that is asked about.
        question: its name.
        trial: tries it out. A model that is changed (other attention, other type) is tried anew.
    """
    attention = getattr(module.config, "_attn_implementation", None)
    key = (question, attention, module.dtype)
    known = _known.setdefault(module, {})
    if key not in known:
        known[key] = trial()
    return known[key]
