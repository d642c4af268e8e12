"""What a model can do, found by trying a few tokens once: one cache and one measure for all trials.

Architectures are not listed: a fast path is taken where it gives what plain reading gives.
"""

import inspect
import logging
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from rewardsteer.models.tree_mask import attention_window

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


def same_changes(
    found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], dtype: torch.dtype
) -> bool:
    """Whether answers to two texts, and how they differ from each other, differ by rounding alone.

    The texts differ in what a wrong reading would lose, or would see though it should not. Where
    such tokens change little, as in a small model with small weights, `same_states` alone might
    take a wrong reading for rounding.

    Args:
        found, expected: answers to the first and to the second text.
        dtype: that the model computes in.
    """
    if not all(same_states(one, other, dtype) for one, other in zip(found, expected, strict=True)):
        return False
    ours, theirs = found[0] - found[1], expected[0] - expected[1]
    exact = dtype in (torch.float32, torch.float64)
    rounding = (1e-5 if exact else 5e-3) * float(expected[0].norm())
    return float((ours - theirs).norm()) <= max(0.5 * float(theirs.norm()), rounding)


def sample_rows(module: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Ids ``[2, T]`` of two texts of the same two lengths, padded on the left, and their mask.

    They differ in the first tokens of every row and end alike. Where layers see a short window
    alone, the rows are longer than it.
    """
    config = module.config.get_text_config(decoder=True)
    size, window = min(config.vocab_size, 97), attention_window(module.config)
    width = 9 if window is None or window > 64 else max(9, window + 3)
    first = (torch.arange(2 * width).view(2, width) * 37 + 5) % size
    second = first.clone()
    second[:, : width - 2] = (first[:, : width - 2] * 3 + 11) % size
    mask = torch.ones_like(first)
    mask[0, :3] = 0
    return first, second, mask


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


def shares_capabilities(view: Any, backbone: Any) -> None:
    """A view of a backbone can do what the backbone can; it is not tried by itself."""
    reads_left_padded(backbone)
    _known[view] = _known[backbone]


def reads_left_padded(backbone: Any) -> bool:
    """Whether rows that are padded on the left have the states that each has alone, found by trying
    a few tokens once. Recurrent layers read padding too, unless they look at the mask."""
    return capability(backbone, "padding on the left", lambda: _try_left_padding(backbone))


@torch.no_grad()
def _try_left_padding(backbone: Any) -> bool:
    *texts, mask = (one.to(backbone.device) for one in sample_rows(backbone))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    takes = "position_ids" in inspect.signature(backbone.forward).parameters
    options = {"position_ids": positions} if takes else {}
    length, training = int(mask[0].sum()), backbone.training
    found, expected = [], []
    try:
        backbone.eval()
        for ids in texts:
            output = backbone(input_ids=ids, attention_mask=mask, use_cache=False, **options)
            found.append(output.last_hidden_state[0, -length:].float())
            alone = backbone(input_ids=ids[:1, -length:], use_cache=False)
            expected.append(alone.last_hidden_state[0].float())
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        logger.debug("The trial of padding on the left failed: %s", error)
        return False
    finally:
        backbone.train(training)
    return same_changes((found[0], found[1]), (expected[0], expected[1]), backbone.dtype)
