"""The token ids that end a response."""

from collections.abc import Collection, Sequence
from typing import Any

from rewardsteer.data.chat import turn_end
from rewardsteer.data.template import Template, resolve
from rewardsteer.data.text_ids import bare_ids


def close_response(
    response_ids: Sequence[int], template: Template, tokenizer: Any,
    stop_ids: Collection[int] = (),
) -> list[int]:
    """Generated ids in the form of training responses: without the token that stopped the
    generation, and closed if ``append_eos`` is set.

    Args:
        response_ids: of a response, with or without its end.
        template: of training.
        tokenizer: the reward model's.
        stop_ids: the policy's stop tokens, which may differ from the reward model's.
    """
    template = resolve(template, tokenizer)
    end = response_end(template, tokenizer)
    # A template may close a turn with white space, which responses contain too.
    own = [token for token in end[:1] if token in tokenizer.added_tokens_decoder]
    stops = {*stop_ids, tokenizer.eos_token_id, *own}
    ids = list(response_ids)
    if end and ids[-len(end) :] == end:
        ids = ids[: -len(end)]
    # The end of a turn may be followed by end-of-text.
    while ids and ids[-1] in stops:
        ids.pop()
    if template.append_eos:
        return [*ids, *end]
    # A response needs at least one token.
    return ids or list(response_ids[:1])


def response_end(template: Template, tokenizer: Any) -> list[int]:
    """Token ids that close a response: the chat template's end of a turn, or end-of-text. Empty
    where there is no such token."""
    template = resolve(template, tokenizer)
    if template.kind == "chat" and template.end == "template":
        return bare_ids(turn_end(tokenizer), tokenizer)
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
