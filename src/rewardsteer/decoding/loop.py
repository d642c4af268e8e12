"""The batched decoding loop: prefill, step, pick, and finished rows leave.

It knows a reader that answers with the policy's next-token logits (`PrefixReader`) and a guide's
session, no model. Because finished rows leave the batch, what the counters say of a row is exactly
what that row cost.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.guide import GuideSession, Prefix
from rewardsteer.decoding.sampling import pick
from rewardsteer.errors import NonFiniteError
from rewardsteer.records import Cost


@dataclass
class Row:
    """One response in the making.

    Attributes:
        name: the request's id.
        prompt_ids: at least one token.
        draws: the row's own random numbers.
        token_ids: what was generated, end-of-text included.
        finish_reason: ``stop`` once a stop token was generated.
        cost: known once the row has finished.
        until: asked after every token with ``token_ids``; true ends the row, for length.
        log_probability: a number to which the policy's log-probabilities of the tokens are added,
            at temperature 1 over the whole vocabulary; None: nobody asks for them.
    """

    name: str
    prompt_ids: Sequence[int]
    draws: random.Random
    token_ids: list[int] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] = "length"
    cost: Cost = field(default_factory=Cost)
    until: Callable[[Sequence[int]], bool] | None = None
    log_probability: float | None = None


def left_pad(rows: Sequence[Sequence[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[B, T]`` with padding on the left."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), padding, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(list(row), dtype=torch.long)
        mask[index, width - len(row) :] = 1
    return ids, mask


def decode(
    reader: Any, session: GuideSession, rows: Sequence[Row], config: DecodingConfig,
    stop_ids: frozenset[int],
) -> None:
    """Generate the responses of one batch, filling in the rows.

    Args:
        reader: ``sync(ids, mask)`` answers with logits ``[B, V]``; counts ``forwards``, ``tokens``.
        session: the guide's, fresh.
        rows: the batch.
        config: mode, temperature, top_k and max_new_tokens are used.
        stop_ids: tokens that end a response.

    Raises:
        NonFiniteError: logits or rewards are no numbers; names step and row.
    """
    active = list(rows)
    ids, mask = left_pad([row.prompt_ids for row in rows])
    seconds = {id(row): 0.0 for row in rows}
    for step in range(config.max_new_tokens):
        began = time.perf_counter()
        prefix = Prefix(ids, mask, step, [row.name for row in active])
        logits = reader.sync(ids, mask)
        _require_numbers(logits, prefix)
        tokens = pick(session.scores(prefix, logits), [row.draws for row in active], config)
        _add_log_probabilities(active, logits, tokens)
        share = (time.perf_counter() - began) / len(active)
        staying = []
        for slot, (row, token) in enumerate(zip(active, tokens, strict=True)):
            row.token_ids.append(token)
            seconds[id(row)] += share
            if token in stop_ids:
                row.finish_reason = "stop"
            elif step + 1 < config.max_new_tokens and not (row.until and row.until(row.token_ids)):
                staying.append(slot)
                continue
            row.cost = _cost(row, slot, reader, session, seconds[id(row)])
        if not staying:
            return
        ids = torch.cat([ids, torch.tensor(tokens)[:, None]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        if len(staying) < len(active):
            kept = torch.tensor(staying)
            ids, mask = ids[kept], mask[kept]
            active = [active[slot] for slot in staying]
            reader.select(staying)
            session.select(staying)


def _cost(row: Row, slot: int, reader: Any, session: GuideSession, seconds: float) -> Cost:
    reads = session.reads(slot)
    return Cost(
        new_tokens=len(row.token_ids),
        lm_calls=len(row.token_ids),
        lm_forwards=reader.forwards[slot],
        lm_tokens=reader.tokens[slot],
        rm_calls=reads.calls,
        rm_forwards=reads.forwards,
        rm_tokens=reads.tokens,
        seconds=seconds,
    )


def _add_log_probabilities(rows: Sequence[Row], logits: Tensor, tokens: Sequence[int]) -> None:
    """Add the tokens' log-probabilities to the rows that ask for them; logits ``[B, V]``."""
    if all(row.log_probability is None for row in rows):
        return
    taken = torch.tensor(tokens, device=logits.device)[:, None]
    values = logits.float().log_softmax(dim=-1).gather(1, taken).squeeze(1).tolist()
    for row, value in zip(rows, values, strict=True):
        if row.log_probability is not None:
            row.log_probability += value


def _require_numbers(logits: Tensor, prefix: Prefix) -> None:
    wrong = torch.isnan(logits).any(dim=1)
    if bool(wrong.any()):
        row = int(wrong.long().argmax())
        raise NonFiniteError(
            f"The policy gave NaN logits at step {prefix.step + 1} of row {prefix.names[row]!r}; "
            "its weights may be damaged, or overflow in this dtype: try float32. What was finished "
            "before is kept."
        )
