"""How likely responses are under a language model, in one pass over the finished texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rewardsteer.data.template import Template
from rewardsteer.decoding.crossing import writer_between
from rewardsteer.decoding.prompts import encode_request
from rewardsteer.decoding.requests import Request
from rewardsteer.models.backbone import accepts
from rewardsteer.models.batching import batches


def prompts_as_read(
    requests: Sequence[Request], tokenizer: Any, scorer: Any, template: Template | None
) -> dict[str, list[int]]:
    """Token ids of prompts by request, as `rewardsteer.decoding.generate.generate` reads them.

    Args:
        requests: the prompts.
        tokenizer: the policy's.
        scorer: the reward model that guides, or None. One with another tokenizer does not say how
            prompts are written.
        template: how prompts are written; None: see `writer_between`.
    """
    template, renderer = writer_between(template, tokenizer, scorer)
    return {
        request.id: encode_request(request, template, renderer, tokenizer) for request in requests
    }


@torch.no_grad()
def log_probabilities(
    model: Any, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]], *,
    batch_size: int,
) -> np.ndarray:
    """Σ_t log p(y_t | x, y₁..t-1) ``[N]`` (float64, nats), at temperature 1 over the whole
    vocabulary, however the tokens were drawn.

    Args:
        model: a causal LM in evaluation mode.
        prompt_ids: N rows, at least one token each.
        response_ids: N rows, end-of-text included where it was generated.
        batch_size: rows read together.
    """
    whole = [[*p, *r] for p, r in zip(prompt_ids, response_ids, strict=True)]
    takes_keep = accepts(model, "logits_to_keep")
    totals = np.empty(len(whole))
    for rows in batches([len(row) for row in whole], rows=batch_size, tokens=None):
        width = max(len(whole[row]) for row in rows)
        ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(whole[row])] = torch.tensor(whole[row])
            mask[index, : len(whole[row])] = 1
        # The logits of a long prompt shared by all rows would be most of the memory.
        keep = width - min(len(prompt_ids[row]) for row in rows) + 1
        logits = model(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False,
            **({"logits_to_keep": keep} if takes_keep else {}),
        ).logits[:, -keep:]
        for index, row in enumerate(rows):
            begin = len(prompt_ids[row]) - 1 - (width - keep)
            taken = torch.tensor(
                list(response_ids[row]), dtype=torch.long, device=logits.device
            )[:, None]
            values = logits[index, begin : begin + len(taken)].float().log_softmax(dim=-1)
            totals[row] = float(values.gather(1, taken).cpu().double().sum())
    return totals
