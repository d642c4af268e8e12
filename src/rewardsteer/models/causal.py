"""Causal language models: loading them, and their log-probabilities of responses' tokens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from rewardsteer.errors import CheckpointError
from rewardsteer.models.batching import batches
from rewardsteer.models.loading import refuse_absent
from rewardsteer.models.placement import placed

Row = tuple[list[int], list[int]]

# Tokens read together: logits of a whole vocabulary stand behind each.
_TOKENS = 4096


@torch.no_grad()
def log_probabilities(
    model: Any, rows: Sequence[Row], batch_size: int | None, batch_tokens: int | None
) -> Iterator[np.ndarray]:
    """log π (float64) of every response token of each row, in order."""
    found: dict[int, np.ndarray] = {}
    lengths = [len(prompt) + len(response) for prompt, response in rows]
    for batch in batches(lengths, rows=batch_size, tokens=batch_tokens or _TOKENS):
        width = max(lengths[row] for row in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(batch):
            ids[place, : lengths[row]] = torch.tensor([*rows[row][0], *rows[row][1]])
            mask[place, : lengths[row]] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for place, row in enumerate(batch):
            found[row] = _chosen(
                logits[place], ids[place, : lengths[row]], len(rows[row][0])
            )
    yield from (found[row] for row in range(len(rows)))


def _chosen(logits: Tensor, ids: Tensor, begin: int) -> np.ndarray:
    """log π of the tokens from ``begin`` on, given logits ``[T, V]``; in float32."""
    first = max(begin, 1)
    before = logits[first - 1 : len(ids) - 1].float()
    values = before.log_softmax(dim=-1).gather(1, ids[first:, None].to(before.device))[:, 0]
    unread = np.zeros(first - begin)
    return np.concatenate([unread, values.double().cpu().numpy()])


def load_causal(
    source: str | Path, device: str | torch.device, dtype: torch.dtype | None,
    options: dict[str, Any], *, what: str = "causal language model",
) -> Any:
    """A causal language model from a folder or hub name; ``what`` it is to the user, for messages.

    Raises:
        CheckpointError: it cannot be loaded, or lacks weights.
    """
    from transformers import AutoModelForCausalLM

    where, options = placed(source, device, options)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(source), dtype=dtype or "auto", output_loading_info=True,
            **{"trust_remote_code": False} | options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"The {what} {source} cannot be loaded: {error}") from error
    refuse_absent(found["missing_keys"], source)
    return model if where is None else model.to(where)
