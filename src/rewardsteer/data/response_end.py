"""The token ids of a text, and those that end a response."""

from collections.abc import Collection, Sequence
from typing import Any

from rewardsteer.data.chat import turn_end
from rewardsteer.data.template import Template, resolve
from rewardsteer.errors import DataError


def token_ids(text: Any, tokenizer: Any, *, special: bool) -> Any:
    """The ids of a text, or of each of several.

    Raises:
        DataError: the tokenizer has no token for some of it, not even one for the unknown.
    """
    try:
        return tokenizer(text, add_special_tokens=special)["input_ids"]
    except Exception as error:
        # The library raises nothing more exact than this.
        if type(error) is not Exception:
            raise
        raise DataError(
            f"A text cannot be written with the tokenizer {tokenizer.name_or_path or 'at hand'} "
            f"({error}); leave out signs that it does not know, or use another model."
        ) from error


def added_ids(bare: list[int], dressed: list[int]) -> tuple[list[int], list[int]]:
    """Ids that a tokenizer put before and behind those of a text: what ``dressed`` has more than
    ``bare``; none where it does not hold them in one piece."""
    for at in range(len(dressed) - len(bare) + 1):
        if dressed[at : at + len(bare)] == bare:
            return dressed[:at], dressed[at + len(bare) :]
    return [], []


def close_response(
    response_ids: Sequence[int], template: Template, tokenizer: Any,
    stop_ids: Collection[int] = (),
) -> list[int]:
    """Generated ids as training writes a response: without the token that stopped the generation,
    closed where ``append_eos`` says so, else open.

    Args:
        response_ids: of a response, with or without its end.
        template: of training.
        tokenizer: the reward model's.
        stop_ids: tokens that end a response of the policy, which may be other ones than here.
    """
    template = resolve(template, tokenizer)
    end = response_end(template, tokenizer)
    # A template may close with blanks, which responses have too.
    own = [token for token in end[:1] if token in tokenizer.added_tokens_decoder]
    stops = {*stop_ids, tokenizer.eos_token_id, *own}
    ids = list(response_ids)
    if end and ids[-len(end) :] == end:
        ids = ids[: -len(end)]
    # The end of a turn may be followed by one of the text.
    while ids and ids[-1] in stops:
        ids.pop()
    if template.append_eos:
        return [*ids, *end]
    # A row needs a token to read.
    return ids or list(response_ids[:1])


def response_end(template: Template, tokenizer: Any) -> list[int]:
    """Token ids that close a response: the chat template's end of a turn, or end-of-text; none
    where there is no such token."""
    template = resolve(template, tokenizer)
    if template.kind == "chat" and template.end == "template":
        return list(token_ids(turn_end(tokenizer), tokenizer, special=False))
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
