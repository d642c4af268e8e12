"""Texts that a trainer or client has written out already: prompt, completion and special tokens."""

from collections.abc import Sequence
from typing import Any

from rewardsteer.data.template import Template
from rewardsteer.data.text_ids import bare_ids
from rewardsteer.data.tokenize import encode_prompts

_RAW = Template(kind="text")


def takes_written(scorer: Any) -> bool:
    """Whether a reward model scores such texts; others read a prompt and its completion."""
    return hasattr(scorer, "close_response")


def encode_written(
    scorer: Any, texts: Sequence[str], prompts: Sequence[str] | None = None, *, special: bool = True
) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of prompts and responses, closed where the reward model's template says so.
    Paddings around the texts and end-of-text behind them do not matter.

    Args:
        scorer: one that `takes_written`.
        texts: prompts with completions; none is empty.
        prompts: beginnings of the texts, where they are known.
        special: put beginning-of-text before texts that have none.
    """
    prompt_ids: list[list[int]] = []
    response_ids: list[list[int]] = []
    for index, text in enumerate(texts):
        ids = _ids(text, scorer.tokenizer, special)
        before: list[int] = []
        if prompts is not None and text.startswith(prompts[index]):
            before = _ids(prompts[index], scorer.tokenizer, special)
        if ids[: len(before)] != before or len(ids) == len(before):
            before = []
        prompt_ids.append(before)
        response_ids.append(scorer.close_response(ids[len(before) :]))
    return prompt_ids, response_ids


def divide_written(
    texts: Sequence[str], prompts: Sequence[str] | None, tokenizer: Any
) -> list[str] | None:
    """The completions in such texts; None where a text does not begin with its prompt.

    Args:
        texts: prompts with completions.
        prompts: their beginnings.
        tokenizer: whose paddings and end-of-text behind a text are left out; None: nothing is.
    """
    if prompts is None or not all(map(str.startswith, texts, prompts)):
        return None
    return [
        bare(text[len(prompt) :], tokenizer) for text, prompt in zip(texts, prompts, strict=True)
    ]


def bare(completion: str, tokenizer: Any) -> str:
    """A completion without paddings and end-of-text behind it."""
    ends = [getattr(tokenizer, name, None) for name in ("pad_token", "eos_token")]
    while end := next((one for one in ends if one and completion.endswith(one)), None):
        completion = completion.removesuffix(end)
    return completion


def _ids(text: str, tokenizer: Any, special: bool) -> list[int]:
    pad, end = tokenizer.pad_token, tokenizer.eos_token_id
    while pad and tokenizer.pad_token_id != end and text.startswith(pad):
        text = text.removeprefix(pad)
    if special and text:
        ids = encode_prompts([text], _RAW, tokenizer)[0]
    else:
        ids = bare_ids(text, tokenizer)
    while ids and ids[-1] in (tokenizer.pad_token_id, end):
        ids.pop()
    return ids
