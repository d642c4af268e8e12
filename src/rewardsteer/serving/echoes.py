"""``echo`` of ``/v1/completions``: prompt and response in one, and their log-probabilities.

Harnesses that compare answers (lm-eval's ``local-completions``) ask for the log-probabilities of
prompts in this way.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from starlette.requests import Request

from rewardsteer.evaluation.inspection import token_texts
from rewardsteer.serving.replies import Logprobs
from rewardsteer.serving.service import Service
from rewardsteer.serving.tickets import Answer, Ticket

# Logits that are turned into log-probabilities together: a long prompt has billions.
_TOGETHER = 2**24


@dataclass(frozen=True)
class Echo:
    """A choice with its prompt.

    Attributes:
        text: of both.
        logprobs: of their tokens, where they were asked for.
    """

    text: str
    logprobs: Logprobs | None


@dataclass(frozen=True)
class _Likely:
    """Of one row: log-probabilities of its tokens but the first, and per token the ids and
    log-probabilities of the likeliest."""

    values: list[float]
    best: list[list[tuple[int, float]]]


async def echoes(
    service: Service, http: Request, prompts: Sequence[list[int]], answers: Sequence[Answer],
    top: int | None, given: Sequence[Any],
) -> list[Echo]:
    """Each answer with its prompt before it.

    Args:
        service: models and queue.
        http: the request.
        prompts: token ids, one for each answer.
        answers: the responses.
        top: how many of the likeliest tokens are told; None: no log-probabilities.
        given: the prompts as they were sent, text or ids.

    Raises:
        ApiError: the queue is full, or it takes too long.
    """
    rows = [[*ids, *answer.token_ids] for ids, answer in zip(prompts, answers, strict=True)]
    likely: list[_Likely | None] = [None] * len(rows)
    if top is not None:
        ticket = Ticket()
        service.batcher.call(
            ticket, _likelihoods(service.served.engine, rows, top), most=service.limits.queue
        )
        likely = await service.value(http, ticket)
    assert service.served.engine is not None
    tokenizer = service.served.engine.tokenizer

    def tell() -> list[Echo]:
        return [
            Echo(
                (sent if isinstance(sent, str) else tokenizer.decode(ids, skip_special_tokens=True))
                + answer.text,
                None if one is None else _logprobs(tokenizer, row, one),
            )
            for sent, ids, answer, row, one in zip(
                given, prompts, answers, rows, likely, strict=True
            )
        ]

    return await service.prepare(http, [], tell)


@torch.no_grad()
def _likelihoods(
    engine: Any, rows: Sequence[list[int]], top: int
) -> Generator[None, None, list[_Likely]]:
    """Row by row, a forward pass each, as the policy would have continued them alone."""
    known: dict[tuple[int, ...], _Likely] = {}
    for row in rows:
        key = tuple(row)
        if key not in known:
            yield
            known[key] = _likelihood(engine.policy, row, top)
    return [known[tuple(row)] for row in rows]


def _likelihood(policy: Any, row: Sequence[int], top: int) -> _Likely:
    ids = torch.tensor([list(row)], device=policy.device)
    logits = policy(input_ids=ids, use_cache=False).logits[0, :-1]
    values: list[float] = []
    best: list[list[tuple[int, float]]] = []
    step = max(1, _TOGETHER // logits.shape[-1])
    for begin in range(0, len(logits), step):
        some = logits[begin : begin + step].float().log_softmax(dim=-1)
        taken = ids[0, begin + 1 : begin + 1 + len(some)]
        values += some.gather(1, taken[:, None]).squeeze(1).tolist()
        found = some.topk(min(max(top, 1), some.shape[-1]), dim=-1)
        best += [
            list(zip(tokens, chances, strict=True))[:top]
            for tokens, chances in zip(
                found.indices.tolist(), found.values.tolist(), strict=True
            )
        ]
    return _Likely(values, best)


def _logprobs(tokenizer: Any, row: Sequence[int], likely: _Likely) -> Logprobs:
    tokens = token_texts(tokenizer, (), row)
    offsets = [0]
    for token in tokens[:-1]:
        offsets.append(offsets[-1] + len(token))
    tops: list[dict[str, float] | None] = [None]
    for token, value, best in zip(tokens[1:], likely.values, likely.best, strict=True):
        named: dict[str, float] = {}
        for other, chance in best:
            named.setdefault(tokenizer.decode([other]), chance)
        # The token that stands there is always told.
        tops.append(named | {token: value})
    return Logprobs(
        tokens=tokens, token_logprobs=[None, *likely.values], top_logprobs=tops,
        text_offset=offsets,
    )
