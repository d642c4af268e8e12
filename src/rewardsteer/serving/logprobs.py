"""Log-probabilities in OpenAI's forms, also those of echoed prompts.

All are those of the policy alone at temperature 1. Harnesses that compare answers (lm-eval's
``local-completions``) ask for the log-probabilities of prompts in this way.
"""

import codecs
import re
from collections.abc import Generator, Sequence
from typing import Any

import torch
from starlette.requests import Request
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rewardsteer.data.text_ids import plain_text
from rewardsteer.decoding.sampling import TokenLogprob, log_probabilities
from rewardsteer.evaluation.inspected_columns import added_text, own_name
from rewardsteer.serving.errors import bad_request
from rewardsteer.serving.handles import RequestHandle
from rewardsteer.serving.replies import ChatLogprobs, ChatToken, LikelyToken, Logprobs
from rewardsteer.serving.service import Service

# Logits converted to log-probabilities at a time: a long prompt has billions.
_TOGETHER = 2**24

# Number of previous tokens with which a token is decoded.
_CONTEXT = 16
# Byte-level BPE's characters, and the bytes for which they stand.
_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
# None is for the first token, which has no token before it.
Found = Sequence[TokenLogprob | None]


class Characters:
    """Counts the characters of a text whose bytes come token by token."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._count = 0

    def begin(self, content: bytes) -> int:
        """At which character the next token begins, or in which it lies, given its bytes."""
        # A character whose bytes end too early is shown as one.
        broken = bool(self._decoder.getstate()[0] and content and content[0] & 0xC0 != 0x80)
        begin = self._count + broken
        self._count += len(self._decoder.decode(content))
        return begin


async def of_prompts(
    service: Service, http: Request, prompts: Sequence[list[int]], top: int
) -> list[Found]:
    """Log-probabilities of the tokens of each prompt.

    Args:
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
    tokenizer: Any, before: Sequence[int], ids: Sequence[int], found: Found,
    characters: Characters | None = None, *, by_id: bool = False,
) -> Logprobs:
    """Log-probabilities of tokens in the form of ``/v1/completions``.

    Args:
        tokenizer: the policy's.
        before: tokens before them.
        ids: the tokens.
        found: their log-probabilities.
        characters: those of the text before them; None: they are the first.
        by_id: tokens are named by their ids.
    """
    told = Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    characters = characters or Characters()
    whole = [*before, *ids]
    for place, (token, one) in enumerate(zip(ids, found, strict=True), start=len(before)):
        name, content = _written(tokenizer, whole, place, token, by_id=by_id)
        told.text_offset.append(characters.begin(content))
        told.tokens.append(name)
        told.token_logprobs.append(None if one is None else one.value)
        named: dict[str, float] | None = None
        if one is not None:
            named = {}
            for likely, value in one.best:
                other, _ = _written(tokenizer, whole, place, likely, by_id=by_id)
                named.setdefault(other, value)
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
    whole = [*before, *ids]

    def named(place: int, token: int, value: float) -> dict[str, Any]:
        name, content = _written(tokenizer, whole, place, token, by_id=by_id)
        return {"token": name, "logprob": value, "bytes": list(content)}

    return ChatLogprobs(content=[
        ChatToken(**named(place, token, one.value), top_logprobs=[
            LikelyToken(**named(place, *other)) for other in one.best
        ])
        for place, (token, one) in enumerate(zip(ids, found, strict=True), start=len(before))
    ])


def token_names(tokenizer: Any, before: Sequence[int], ids: Sequence[int]) -> list[str]:
    """The names of tokens that follow others, as log-probabilities have them."""
    whole = [*before, *ids]
    return [
        _written(tokenizer, whole, place, token, by_id=False)[0]
        for place, token in enumerate(ids, start=len(before))
    ]


def _written(
    tokenizer: Any, whole: Sequence[int], place: int, token: int, *, by_id: bool
) -> tuple[str, bytes]:
    """The name of a token at a position, and what it adds to the text in UTF-8.

    The name is its text, for a token that begins or ends within a character OpenAI's
    ``bytes:\\xe6\\x97``, or its id, which is unique.
    """
    name = added_text(tokenizer, whole[max(0, place - _CONTEXT) : place], token)
    if name is not None:
        content = name.encode()
    else:
        name = own_name(tokenizer, token)
        alone = plain_text([token], tokenizer, special=True)
        if "\ufffd" in alone:
            content = _bytes_of(name)
            name = "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
        else:
            content = alone.encode()
    return (f"token_id:{token}" if by_id else name), content


def _bytes_of(name: str) -> bytes:
    """The bytes of a token from its name in the vocabulary: ``<0xE6>``, or byte-level BPE's
    character for each byte."""
    if re.fullmatch("<0x[0-9A-Fa-f]{2}>", name):
        return bytes.fromhex(name[3:5])
    return b"".join(
        bytes([_BYTES[one]]) if one in _BYTES else one.encode() for one in name
    )
