"""Tokenization with an exact boundary between prompt and response.

Generation starts from the tokens of the prompt alone, so the prompt is always tokenized by itself.
The response keeps its tokens in the joint text when that text's tokens begin with the prompt's
(this keeps SentencePiece from adding a space, for instance); otherwise it is tokenized by itself.
With a chat template the whole row is tokenized in one piece (see `encode_rows`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rewardsteer.data.render import Tools, render_closed, render_prompt, render_response
from rewardsteer.data.template import Template, resolve
from rewardsteer.data.text_ids import added_ids, token_ids
from rewardsteer.data.thoughts import boundary, marker_begin, shared_length
from rewardsteer.errors import DataError
from rewardsteer.records import Prompt


class TokenizedRow(NamedTuple):
    """A prompt and a response as token ids; the response includes its end."""

    prompt_ids: list[int]
    response_ids: list[int]

    def from_token(self, position: int) -> list[int]:
        """The row's tokens from a position on."""
        return [*self.prompt_ids, *self.response_ids][position:]


def encode_prompts(
    prompt_texts: Sequence[str], template: Template, tokenizer: Any
) -> list[list[int]]:
    """Token ids of rendered prompts, with one call of the tokenizer.

    A text that begins with beginning-of-text does not get a second one.
    """
    if not prompt_texts:
        return []
    special = template.add_special_tokens and resolve(template, tokenizer).kind == "text"
    rows = [list(ids) for ids in token_ids(list(prompt_texts), tokenizer, special=special)]
    if not special:
        return rows
    begin, end = _added(prompt_texts, tokenizer)
    for ids in rows:
        # Some tokenizers append end-of-text, which would close the prompt.
        if end and ids[-len(end) :] == end:
            del ids[-len(end) :]
        if begin and ids[: len(begin) + 1] == [*begin, begin[-1]]:
            ids.pop(0)
    return rows


def encode_prompt(prompt_text: str, template: Template, tokenizer: Any) -> list[int]:
    """Token ids of a rendered prompt."""
    return encode_prompts([prompt_text], template, tokenizer)[0]


def encode_rows(
    prompts: Sequence[Prompt], responses: Sequence[str], template: Template, tokenizer: Any, *,
    tools: Sequence[Tools | None] | None = None,
) -> list[TokenizedRow]:
    """Render and tokenize prompts with their responses.

    For ``chat`` a row's tokens are those of the whole text that the chat template writes, as in
    transformers and TRL, but a thought that the template would drop is kept. The response begins
    after the tokens of the prompt with the opened assistant turn. Where the row's tokens do not
    begin with those (the template opens the turn with a thought, or the first word merges with the
    opening), it begins after the common prefix, but never inside a special token of the template.

    Raises:
        DataError: as `render_prompt`, or the template needs end-of-text and the tokenizer has none.
    """
    return [
        one.row for one in render_and_encode(prompts, responses, template, tokenizer, tools)
    ]


class EncodedRow(NamedTuple):
    """A tokenized row, and the texts of its prompt and its response."""

    row: TokenizedRow
    before: str
    behind: str


def render_and_encode(
    prompts: Sequence[Prompt], responses: Sequence[str], template: Template, tokenizer: Any,
    tools: Sequence[Tools | None] | None,
) -> list[EncodedRow]:
    """As `encode_rows`, with the texts of each row."""
    template = resolve(template, tokenizer)
    several = list(tools) if tools is not None else [None] * len(prompts)
    texts = [
        render_prompt(prompt, template, tokenizer, tools=own)
        for prompt, own in zip(prompts, several, strict=True)
    ]
    bodies = [render_response(response, template) for response in responses]
    chats = template.kind == "chat" and template.end == "template"
    if chats:
        whole = [
            render_closed(prompt, text, response, template, tokenizer, tools=own)
            for prompt, text, response, own in zip(prompts, texts, responses, several, strict=True)
        ]
        cuts = map(boundary, whole, texts, bodies)
        parts = [(text[:cut], text[cut:]) for text, cut in zip(whole, cuts, strict=True)]
        texts, bodies = [one for one, _ in parts], [one for _, one in parts]
    else:
        whole = [text + body for text, body in zip(texts, bodies, strict=True)]
    # A prompt usually occurs several times, with different responses.
    once = list(dict.fromkeys(texts))
    known = dict(zip(once, encode_prompts(once, template, tokenizer), strict=True))
    joint = encode_prompts(whole, template, tokenizer)
    rows = [
        _divided(known[text], ids, text, body, tokenizer) if chats else
        TokenizedRow(known[text], _response_ids(known[text], ids, body, template, tokenizer))
        for text, body, ids in zip(texts, bodies, joint, strict=True)
    ]
    return [EncodedRow(*one) for one in zip(rows, texts, bodies, strict=True)]


def paired(
    prompts: Sequence[Prompt], completions: Sequence[str]
) -> tuple[Sequence[Prompt], Sequence[str]]:
    """Prompts and completions as lists of equal length; two plain texts become lists of one.

    Raises:
        DataError: one is a text and the other a list, or the lengths differ.
    """
    if isinstance(prompts, str) and isinstance(completions, str):
        prompts, completions = [prompts], [completions]
    if isinstance(prompts, str) or isinstance(completions, str):
        raise DataError(
            "Expected a list of prompts and a list of completions (or one text each); got a "
            "text on one side."
        )
    if len(prompts) != len(completions):
        raise DataError(
            f"Expected one completion for each prompt, got {len(prompts)} prompts and "
            f"{len(completions)} completions."
        )
    return prompts, completions


def encode_completion(
    prompt: Prompt, completion: str, template: Template, tokenizer: Any
) -> TokenizedRow:
    """Render and tokenize: ``(prompt ids, response ids)``."""
    return encode_rows([prompt], [completion], template, tokenizer)[0]


def one_prompt(
    encoded: Sequence[EncodedRow], template: Template, tokenizer: Any
) -> list[TokenizedRow]:
    """Rows with the same prompt ids: the shortest prompt where the boundaries differ."""
    rows = [one.row for one in encoded]
    if all(row.prompt_ids == rows[0].prompt_ids for row in rows):
        return rows
    cut = _shared_by_all(rows)
    before = min((one.before for one in encoded), key=len)
    if cut < min(len(row.prompt_ids) for row in rows):
        # The tokens of the longer prompt text do not begin with those of the shorter one.
        own = encode_prompts([before], template, tokenizer)[0]
        rows = [
            _divided(
                own, row.from_token(0), before, (one.before + one.behind)[len(before) :], tokenizer
            )
            for row, one in zip(rows, encoded, strict=True)
        ]
        cut = _shared_by_all(rows)
    return [TokenizedRow(row.from_token(0)[:cut], row.from_token(cut)) for row in rows]


def _shared_by_all(rows: Sequence[TokenizedRow]) -> int:
    return min(shared_length(rows[0].prompt_ids, row.prompt_ids) for row in rows)


def _response_ids(
    prompt_ids: list[int], joint: list[int], body: str, template: Template, tokenizer: Any
) -> list[int]:
    """Token ids of a response after its prompt, closed by end-of-text if the template does so."""
    if joint[: len(prompt_ids)] == prompt_ids:
        ids = joint[len(prompt_ids) :]
    else:
        ids = list(token_ids(body, tokenizer, special=False))
    if not template.append_eos:
        return ids
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"The tokenizer {tokenizer.name_or_path} has no end-of-text token; set one or use "
            "template.append_eos=false."
        )
    # A response text that already ends with end-of-text is not closed again.
    return ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]


def _divided(
    prompt_ids: list[int], joint: list[int], before: str, behind: str, tokenizer: Any
) -> TokenizedRow:
    cut = shared_length(prompt_ids, joint)
    if cut < len(prompt_ids):
        at = len(before) - len(tokenizer.decode(prompt_ids[cut:]))
        if marker_begin(before, at) < at:
            # The response merges with a marker that is plain text for the tokenizer.
            return TokenizedRow(prompt_ids, list(token_ids(behind, tokenizer, special=False)))
    return TokenizedRow(joint[:cut], joint[cut:])


def _added(texts: Sequence[str], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that a tokenizer adds before and after each of the texts."""
    text = min(texts, key=len)
    bare, dressed = (
        list(token_ids(text, tokenizer, special=special)) for special in (False, True)
    )
    if not bare:
        # Without ids of a text, those before it cannot be told from those after it.
        ends = len(dressed) > 0 and dressed[-1] == tokenizer.eos_token_id
        opens = tokenizer.bos_token_id == tokenizer.eos_token_id
        return ([], dressed) if ends and not opens and len(dressed) == 1 else (dressed, [])
    return added_ids(bare, dressed)
