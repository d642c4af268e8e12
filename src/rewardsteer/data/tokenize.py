"""Text to token ids with an exact boundary between prompt and response.

A model that generates reads the prompt's own tokens, whatever follows. So the prompt is always
tokenized by itself. The response takes the tokens it has in the joint text when those begin with
the prompt's (this keeps, for instance, SentencePiece from adding a space), else its own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rewardsteer.data.render import render_prompt, render_response
from rewardsteer.data.template import Template
from rewardsteer.errors import DataError
from rewardsteer.records import Comparison, Prompt


class TokenizedPair(NamedTuple):
    """A comparison as token ids; responses include end-of-text."""

    id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    margin: float


def encode_prompts(
    prompt_texts: Sequence[str], template: Template, tokenizer: Any
) -> list[list[int]]:
    """Token ids of rendered prompts, all in one call of the tokenizer."""
    if not prompt_texts:
        return []
    special = template.add_special_tokens and template.kind == "text"
    rows = tokenizer(list(prompt_texts), add_special_tokens=special)["input_ids"]
    end = tokenizer.eos_token_id
    if special and any(ids and ids[-1] == end for ids in rows) and end != _first(tokenizer):
        # Tokenizers that close a text with end-of-text would close the prompt.
        rows = [ids[:-1] if ids and ids[-1] == end else ids for ids in rows]
    return [list(ids) for ids in rows]


def encode_prompt(prompt_text: str, template: Template, tokenizer: Any) -> list[int]:
    """Token ids of a rendered prompt."""
    return encode_prompts([prompt_text], template, tokenizer)[0]


def encode_response(
    prompt_text: str, prompt_ids: list[int], response_text: str, template: Template,
    tokenizer: Any, *, joint: list[int] | None = None,
) -> list[int]:
    """Token ids of a rendered response after its prompt, closed by end-of-text if asked.

    Args:
        prompt_text: the rendered prompt.
        prompt_ids: its token ids.
        response_text: the rendered response.
        template: says whether end-of-text closes it.
        tokenizer: the tokenizer.
        joint: token ids of both texts together where they are known already.

    Raises:
        DataError: end-of-text is asked for and the tokenizer has none.
    """
    if joint is None:
        joint = encode_prompt(prompt_text + response_text, template, tokenizer)
    if joint[: len(prompt_ids)] == prompt_ids:
        ids = joint[len(prompt_ids) :]
    else:
        ids = list(tokenizer(response_text, add_special_tokens=False)["input_ids"])
    if not template.append_eos:
        return ids
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"The tokenizer {tokenizer.name_or_path} has no end-of-text token; set one or use "
            "template.append_eos=false."
        )
    # A response text that already ends in end-of-text is closed once, not twice.
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]


def encode_completion(
    prompt: Prompt, completion: str, template: Template, tokenizer: Any
) -> tuple[list[int], list[int]]:
    """Render and tokenize: ``(prompt ids, response ids)``."""
    text = render_prompt(prompt, template, tokenizer)
    prompt_ids = encode_prompt(text, template, tokenizer)
    response = render_response(completion, template)
    return prompt_ids, encode_response(text, prompt_ids, response, template, tokenizer)


def encode_comparison(comparison: Comparison, template: Template, tokenizer: Any) -> TokenizedPair:
    """Render and tokenize a comparison."""
    prompt_ids, chosen_ids = encode_completion(
        comparison.prompt, comparison.chosen, template, tokenizer
    )
    _, rejected_ids = encode_completion(
        comparison.prompt, comparison.rejected, template, tokenizer
    )
    return TokenizedPair(comparison.id, prompt_ids, chosen_ids, rejected_ids, comparison.margin)


def _first(tokenizer: Any) -> int | None:
    """The id a tokenizer opens texts with (it may be the end-of-text token, as in OPT)."""
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return ids[0] if ids else None
