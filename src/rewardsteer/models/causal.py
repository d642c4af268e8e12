"""Causal language models: loading them, and their log-probabilities of responses' tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from rewardsteer.errors import CheckpointError
from rewardsteer.models.attention import with_caps_of
from rewardsteer.models.backbone import accepts
from rewardsteer.models.batching import batches, right_pad
from rewardsteer.models.loading import refuse_absent
from rewardsteer.models.placement import placed

Row = tuple[list[int], list[int]]


@torch.no_grad()
def log_probabilities(
    model: Any, rows: Sequence[Row], batch_size: int | None, batch_tokens: int | None
) -> Iterator[np.ndarray]:
    """log π (float64, nats) of every response token of each row, in order, at temperature 1 over
    the whole vocabulary; 0 of a token that nothing stands before.

    Args:
        model: a causal LM in evaluation mode.
        rows: token ids of prompts and responses.
        batch_size, batch_tokens: rows, and tokens with padding, read together; None: any number.
    """
    found: dict[int, np.ndarray] = {}
    lengths = [len(prompt) + len(response) for prompt, response in rows]
    takes_keep = accepts(model, "logits_to_keep")
    for batch in batches(lengths, rows=batch_size, tokens=batch_tokens):
        padded = right_pad([[*rows[row][0], *rows[row][1]] for row in batch])
        ids, mask = (one.to(model.device) for one in padded)
        # The logits of a long prompt shared by all rows would be most of the memory.
        begin = max(min(len(rows[row][0]) for row in batch) - 1, 0)
        keep = ids.shape[1] - begin
        logits = model(
            input_ids=ids, attention_mask=mask, use_cache=False,
            **({"logits_to_keep": keep} if takes_keep else {}),
        ).logits[:, -keep:]
        for place, row in enumerate(batch):
            found[row] = _chosen(
                logits[place], ids[place, begin : lengths[row]], len(rows[row][0]) - begin
            )
    yield from (found[row] for row in range(len(rows)))


def _chosen(logits: Tensor, ids: Tensor, begin: int) -> np.ndarray:
    """log π of the tokens from ``begin`` on, given logits ``[T, V]``; in float32."""
    first = max(begin, 1)
    before = logits[first - 1 : len(ids) - 1].float()
    values = before.log_softmax(dim=-1).gather(1, ids[first:, None].to(before.device))[:, 0]
    unread = np.zeros(first - begin)
    return np.concatenate([unread, values.cpu().double().numpy()])


def parameter_count(source: str | Path) -> int:
    """Number of weights of a causal language model from a folder or hub name, by its configuration;
    those that two layers share count once.

    Raises:
        CheckpointError: it cannot be read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The model {source} cannot be read: {error}") from error
    return sum(weight.numel() for weight in model.parameters())


def load_causal(
    source: str | Path, device: str | torch.device, dtype: torch.dtype | None,
    options: dict[str, Any], *, what: str = "causal language model",
) -> Any:
    """A causal language model from a folder or hub name; ``what`` it is to the user, for messages.

    Raises:
        CheckpointError: it cannot be loaded, or lacks weights.
    """
    from transformers import AutoModelForCausalLM

    where, options = placed(source, device, with_caps_of(str(source), options))
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(source), dtype=dtype or "auto", output_loading_info=True,
            **{"trust_remote_code": False} | options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"The {what} {source} cannot be loaded: {error}") from error
    refuse_absent(found["missing_keys"], source)
    return model if where is None else model.to(where)
