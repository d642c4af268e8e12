"""Log-probabilities in OpenAI's forms, also those of echoed prompts.

All are those of the policy alone at temperature 1. Harnesses that compare answers (lm-eval's
``local-completions``) ask for the log-probabilities of prompts in this way.
"""

from collections.abc import Generator, Sequence
from typing import Any

import torch
from starlette.requests import Request

from rewardsteer.decoding.sampling import TokenLogprob, log_probabilities
from rewardsteer.evaluation.inspected_columns import token_texts
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.handles import RequestHandle
from rewardsteer.serving.replies import ChatLogprobs, ChatToken, LikelyToken, Logprobs
from rewardsteer.serving.service import Service

# Logits converted to log-probabilities at a time: a long prompt has billions.
_TOGETHER = 2**24

# Number of previous tokens with which a token is decoded.
_CONTEXT = 16
# None is for the first token, which has no token before it.
Found = Sequence[TokenLogprob | None]


async def of_prompts(
    service: Service, http: Request, prompts: Sequence[list[int]], top: int
) -> list[Found]:
    """Log-probabilities of the tokens of each prompt.

    Args:
        service: models and queue.
        http: the request.
        prompts: token ids.
        top: how many of the likeliest tokens to name as well.

    Raises:
        ApiError: the queue is full, or it takes too long.
    """
    engine = service.served.engine
    if "logits" not in engine.abilities:
        raise bad_request(
            f"Log-probabilities of a prompt are not known by the engine {engine.name!r}; leave out "
            "echo or logprobs, or ask a server with the engine transformers.", "logprobs",
        )
    handle, policy = RequestHandle(), engine.policy

    def steps() -> Generator[None, None, list[Found]]:
        """Row by row, a forward pass each, as the policy would have continued them alone."""
        known: dict[tuple[int, ...], Found] = {}
        for row in map(tuple, prompts):
            if row not in known:
                yield
                known[row] = [None, *_likelihoods(policy, row, top)]
        return [known[tuple(row)] for row in prompts]

    service.worker.call(handle, steps(), most=service.limits.queue)
    found: list[Found] = await service.result(http, handle)
    return found


@torch.no_grad()
def _likelihoods(policy: Any, row: Sequence[int], top: int) -> list[TokenLogprob]:
    ids = torch.tensor([list(row)], device=policy.device)
    logits = policy(input_ids=ids, use_cache=False).logits[0, :-1]
    found: list[TokenLogprob] = []
    step = max(1, _TOGETHER // logits.shape[-1])
    for begin in range(0, len(logits), step):
        some = logits[begin : begin + step]
        found += log_probabilities(some, row[begin + 1 : begin + 1 + len(some)], top)
    return found


def completion_form(
    tokenizer: Any, before: Sequence[int], ids: Sequence[int], found: Found, offset: int = 0, *,
    by_id: bool = False,
) -> Logprobs:
    """Log-probabilities of tokens in the form of ``/v1/completions``.

    Args:
        tokenizer: the policy's.
        before: tokens before them.
        ids: the tokens.
        found: their log-probabilities.
        offset: characters before them.
        by_id: tokens are named by their ids.
    """
    told = Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    whole = [*before, *ids]
    for place, (text, one) in enumerate(
        zip(token_texts(tokenizer, before, ids), found, strict=True), start=len(before)
    ):
        told.text_offset.append(offset)
        offset += len(text)
        name = _name(whole[place], text, by_id=by_id)
        told.tokens.append(name)
        told.token_logprobs.append(None if one is None else one.value)
        named: dict[str, float] | None = None
        if one is not None:
            named = {}
            for token, other, value in _best(tokenizer, whole, place, one):
                named.setdefault(_name(token, other, by_id=by_id), value)
            # The actual token is always included.
            named[name] = one.value
        told.top_logprobs.append(named)
    return told


def chat_form(
    tokenizer: Any, before: Sequence[int], ids: Sequence[int], found: Sequence[TokenLogprob], *,
    by_id: bool = False,
) -> ChatLogprobs:
    """Log-probabilities in the form of ``/v1/chat/completions``; arguments as in
    `completion_form`."""

    def named(token: int, text: str, value: float) -> dict[str, Any]:
        name = _name(token, text, by_id=by_id)
        return {"token": name, "logprob": value, "bytes": list(text.encode())}

    texts, whole = token_texts(tokenizer, before, ids), [*before, *ids]
    return ChatLogprobs(content=[
        ChatToken(**named(whole[place], text, one.value), top_logprobs=[
            LikelyToken(**named(*other)) for other in _best(tokenizer, whole, place, one)
        ])
        for place, (text, one) in enumerate(zip(texts, found, strict=True), start=len(before))
    ])


def _name(token: int, text: str, *, by_id: bool) -> str:
    """A token's name: its text, or its id, which is unique."""
    return f"token_id:{token}" if by_id else text


def _best(
    tokenizer: Any, whole: Sequence[int], place: int, one: TokenLogprob
) -> list[tuple[int, str, float]]:
    """The likeliest tokens at a position: ids, texts and log-probabilities."""
    before = whole[max(0, place - _CONTEXT) : place]
    return [
        (other, token_texts(tokenizer, before, [other])[0], value) for other, value in one.best
    ]
