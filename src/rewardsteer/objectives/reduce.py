"""Means over the batches of all processes."""

import torch
from torch import Tensor
from torch import distributed as dist


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """``Σ total / Σ count`` over all processes; with one process, ``total / count``.

    Data-parallel training averages gradients over processes. A mean of local means weighs rows of
    a short batch more; here every value weighs the same. The result is the global mean in value,
    and its gradient, after that averaging, is the gradient of the global mean, also behind a
    nonlinear function such as a logarithm.

    Every process must call this the same number of times.

    Args:
        total: scalar sum of this process's values, differentiable.
        count: scalar number of them; 0 everywhere gives 0.
    """
    count = count.to(total)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        sums = torch.stack([total.detach(), count])
        dist.all_reduce(sums)
        local = total * dist.get_world_size()
        total = local + (sums[0] - local.detach())
        count = sums[1]
    return total / count.clamp(min=1)
