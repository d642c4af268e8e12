"""Loading a policy, and which tokens end its responses."""

from pathlib import Path
from typing import Any

import torch

from rewardsteer.devices import AUTO, parse_dtype
from rewardsteer.errors import CheckpointError
from rewardsteer.models.causal import load_causal
from rewardsteer.models.checkpoint import CARD
from rewardsteer.models.limits import position_limit


def load_policy(
    source: str | Path, *, device: str | torch.device = AUTO,
    dtype: torch.dtype | str | None = None, **options: Any,
) -> Any:
    """A causal LM from a folder or hub name, in evaluation mode.

    Args:
        source: the folder or name.
        device: ``auto`` (CUDA, else MPS, else CPU), or a name or device as torch knows it; ignored
            with a ``device_map``.
        dtype: of the weights, or its name; None: as saved.
        options: passed on to ``from_pretrained`` (``device_map``, ``quantization_config``, …).

    Raises:
        CheckpointError: it cannot be loaded, is a reward model, or is no causal LM with all its
            weights.
        ConfigError: there is no such device.
    """
    if (Path(source) / CARD).exists():
        raise _no_policy(source, f"it has a {CARD}")
    own = options | {"trust_remote_code": False}
    model = load_causal(source, device, parse_dtype(dtype), own, what="policy").eval()
    for name in model.config.architectures or ():
        if name.endswith("Classification"):
            raise _no_policy(source, name)
    return model


def _no_policy(source: str | Path, sign: str) -> CheckpointError:
    """The error for a reward model in place of a policy. With tied embeddings it has all weights of
    a causal LM, and would generate noise."""
    return CheckpointError(
        f"Expected a policy, a causal language model; {source} is a reward model ({sign}). Give "
        "the model that generates as policy and this one as reward model."
    )


def stop_ids(settings: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a response: those of a policy's generation settings and end-of-text."""
    named = getattr(settings, "eos_token_id", None)
    several = named if isinstance(named, list | tuple) else [named]
    return frozenset(i for i in (*several, tokenizer.eos_token_id) if i is not None)


def model_bounds(source: str | Path) -> tuple[int | None, int]:
    """Most positions that a model on disk or on the hub was built for, None when it states none,
    and how many token ids it has embeddings for.

    Raises:
        CheckpointError: it cannot be read.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(source))
        return position_limit(config), int(config.get_text_config().vocab_size)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The model {source} cannot be read: {error}") from error
