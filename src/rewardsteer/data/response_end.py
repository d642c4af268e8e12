"""The token ids of a text, and those that end a response."""

from collections.abc import Collection, Sequence
from typing import Any

from rewardsteer.data.chat import turn_end
from rewardsteer.data.template import Template, resolve
from rewardsteer.errors import DataError


def token_ids(text: Any, tokenizer: Any, *, special: bool) -> Any:
    """The ids of a text, or of each of several.

    Raises:
        DataError: the tokenizer has no token for a part of the text, and no unknown token.
    """
    try:
        return tokenizer(text, add_special_tokens=special)["input_ids"]
    except Exception as error:
        # The library raises no more specific error.
        if type(error) is not Exception:
            raise
        raise DataError(
            f"A text cannot be written with the tokenizer {tokenizer.name_or_path or 'at hand'} "
            f"({error}); leave out signs that it does not know, or use another model."
        ) from error


def added_ids(bare: list[int], dressed: list[int]) -> tuple[list[int], list[int]]:
    """Ids before and after ``bare`` in ``dressed``, which a tokenizer adds to a text. Both are
    empty where ``bare`` is not a contiguous part of ``dressed``."""
    for at in range(len(dressed) - len(bare) + 1):
        if dressed[at : at + len(bare)] == bare:
            return dressed[:at], dressed[at + len(bare) :]
    return [], []


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
        return list(token_ids(turn_end(tokenizer), tokenizer, special=False))
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
