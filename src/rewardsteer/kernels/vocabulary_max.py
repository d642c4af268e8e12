"""The best next token without the logits.

The maximum constraint needs one number of a vocabulary-sized product: its maximum. Here the product
is made chunk by chunk of the vocabulary, without gradients, and only the place of the maximum is
kept; value and gradient then come from one dot product a position. Where the maximum is attained
once, that is the gradient of the plain maximum, exactly; where several tokens tie, autograd's
maximum picks one of them too.

No tensor of size positions × vocabulary is ever held: memory grows with the chunk instead.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

# Numbers in a chunk of logits: 16 MiB in float32.
_CHUNK_NUMBERS = 1 << 22


@torch.no_grad()
def vocabulary_argmax(
    hidden: Tensor, weight: Tensor, bias: Tensor | None = None, *, chunk: int | None = None
) -> Tensor:
    """Which row of ``weight`` has the largest product with each state.

    Args:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        bias: ``[V]`` or None.
        chunk: rows of ``weight`` read at once; None: as many as a few MiB of products allow.

    Returns:
        ``[N]`` indices; the lowest one of equals.
    """
    states = hidden.to(weight.dtype)
    size = chunk or max(_CHUNK_NUMBERS // max(len(states), 1), 128)
    best = states.new_full((len(states),), -torch.inf)
    place = torch.zeros(len(states), dtype=torch.long, device=states.device)
    # Autocast would round the products, and ties so made would move the maximum.
    with torch.autocast(states.device.type, enabled=False):
        for begin in range(0, len(weight), size):
            rows = slice(begin, begin + size)
            products = linear(states, weight[rows], None if bias is None else bias[rows])
            value, index = products.max(dim=-1)
            better = value > best
            best = torch.where(better, value, best)
            place = torch.where(better, index + begin, place)
    return place


def gather_products(
    hidden: Tensor, weight: Tensor, tokens: Tensor, bias: Tensor | None = None
) -> Tensor:
    """``hidden · weight[tokens] + bias[tokens]`` ``[...]``, one dot product a position.

    Float32 or wider; differentiable in hidden, weight and bias.

    Args:
        hidden: ``[..., D]``.
        weight: ``[V, D]``.
        tokens: ``[...]`` row numbers.
        bias: ``[V]`` or None.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        products = (hidden.to(weight.dtype) * weight[tokens]).sum(-1)
        if bias is not None:
            products = products + bias[tokens]
    return products if products.dtype == torch.float64 else products.float()
