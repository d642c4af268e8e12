"""The load-balancing loss of mixtures of experts (Switch Transformer, arXiv 2101.03961).

transformers adds it in its language models. A reward model calls the backbone, so the loss is added
here, with the library's own function of the architecture on the router logits of real tokens.
"""

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_CHOSEN = ("num_experts_per_tok", "top_k_experts", "moe_top_k")


def router_coefficient(backbone: Any) -> float:
    """What the model's configuration multiplies its router loss by; 0 without one."""
    config = backbone.config.get_text_config(decoder=True)
    coefficient = getattr(config, "router_aux_loss_coef", None)
    if not coefficient or _function(backbone) is None or _first(config, _EXPERTS) is None:
        return 0.0
    return float(coefficient)


def router_loss(backbone: Any, output: Any, mask: Tensor) -> Tensor | None:
    """The loss of the tokens that ``mask [P, W]`` marks, before the coefficient; None where the
    backbone gave no router logits."""
    logits, function = getattr(output, "router_logits", None), _function(backbone)
    if not logits or function is None:
        return None
    config = backbone.config.get_text_config(decoder=True)
    given = tuple(layer.flatten(0, -2) for layer in logits if layer is not None)
    chosen = int(_first(config, _CHOSEN) or 2)
    loss: Tensor = function(given, int(_first(config, _EXPERTS) or 0), chosen, mask.long())
    return loss


def _function(backbone: Any) -> Callable[..., Any] | None:
    module = sys.modules.get(type(backbone).__module__)
    return getattr(module, "load_balancing_loss_func", None)


def _first(config: Any, names: tuple[str, ...]) -> Any:
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if value), None)
