"""Prompts rendered and tokenized for the policy, each with its error if it has one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewardsteer.data.render import render_prompt
from rewardsteer.data.template import Template
from rewardsteer.data.tokenize import encode_prompt
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.crossing import writer_between
from rewardsteer.decoding.requests import Request
from rewardsteer.errors import DataError, RewardsteerError


@dataclass(frozen=True)
class Prepared:
    """A request that is written and tokenized, or why it cannot be.

    Attributes:
        shown: its prompt as results carry it.
        ids: its token ids.
        error: what is wrong with it; None: nothing.
    """

    request: Request
    shown: str = ""
    ids: Sequence[int] = ()
    error: RewardsteerError | None = None


def prepare(
    requests: Sequence[Request], template: Template, renderer: Any, tokenizer: Any,
    limits: dict[str, int | None], config: DecodingConfig, *, vocabulary: int,
) -> list[Prepared]:
    """Render and tokenize prompts. A prompt that fails, or has token ids that the policy does not
    know (from ``vocabulary`` on), is returned with its error.

    Raises:
        DataError: a prompt is too long.
    """
    ready = []
    for request in requests:
        try:
            shown = show_request(request, template, renderer)
            ids = encode_request(request, template, renderer, tokenizer)
            check_ids(request, ids, vocabulary)
            ready.append(Prepared(request, shown, ids))
        except RewardsteerError as error:
            ready.append(Prepared(request, error=error))
    fine = [one for one in ready if one.error is None]
    check_lengths([one.request for one in fine], [one.ids for one in fine], limits, config)
    return ready


def check_ids(request: Request, ids: Sequence[int], vocabulary: int) -> None:
    """Raise `DataError` on a token id that the policy has no embedding for."""
    wrong = next((token for token in ids if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise DataError(
            f"The prompt {request.id!r} has the token id {wrong}, but the policy knows those from "
            f"0 to {vocabulary - 1}; give it ids of the policy's tokenizer, or text."
        )


def show_request(request: Request, template: Template, renderer: Any) -> str:
    """The prompt as results carry it: text as it was given, a conversation as rendered."""
    if isinstance(request.prompt, str):
        return request.prompt
    return render_prompt(request.prompt, template, renderer)


def encode_request(
    request: Request, template: Template, renderer: Any, tokenizer: Any
) -> list[int]:
    """Token ids of a prompt as the template writes it; raises `DataError` where there are none."""
    if request.prompt_ids is not None:
        ids = list(request.prompt_ids)
    else:
        text = render_prompt(request.prompt, template, renderer)
        ids = encode_prompt(text, template, tokenizer)
    if ids:
        return ids
    # A model needs a token to predict the next, so an empty prompt is the start of a text.
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if start is not None:
            return [start]
    raise DataError(
        f"The prompt {request.id!r} encodes to no token and the tokenizer has no begin- or "
        "end-of-text token to start from; give it some text."
    )


def check_lengths(
    requests: Sequence[Request], encoded: Sequence[Sequence[int]], limits: dict[str, int | None],
    config: DecodingConfig,
) -> None:
    """Raise `DataError` where a row may grow longer than a model can read."""
    for request, ids in zip(requests, encoded, strict=True):
        for reader, limit in limits.items():
            if limit is not None and len(ids) + config.max_new_tokens > limit:
                raise DataError(
                    f"The prompt {request.id!r} has {len(ids)} tokens; with max_new_tokens = "
                    f"{config.max_new_tokens} it exceeds the {limit} that the {reader} can read. "
                    "Shorten the prompt or lower max_new_tokens."
                )


def prompts_as_read(
    requests: Sequence[Request], tokenizer: Any, scorer: Any, template: Template | None
) -> dict[str, list[int]]:
    """Token ids of prompts by request, as `rewardsteer.decoding.generate.generate_by` reads them.

    Args:
        tokenizer: the policy's.
        scorer: the reward model that guides, or None. The template of one with another tokenizer
            is not used.
        template: how prompts are written; None: see `writer_between`.
    """
    template, renderer = writer_between(template, tokenizer, scorer)
    return {
        request.id: encode_request(request, template, renderer, tokenizer) for request in requests
    }
