"""Tokenization with the same ids as a tokenizer, several times as fast: texts are cut at spaces,
and each distinct piece is tokenized once.

Byte-level BPE tokenizers (GPT-2, Llama 3, Qwen, Pythia, SmolLM, …) split a text into words before
merging, and never merge across the boundary between a character and a following space. The ids of a
text are therefore those of its pieces, most of which are cached. Configuration and tests on
combinations of characters of all classes decide whether this holds; if not, nothing is cut.
"""

import json
import re
from collections.abc import Sequence
from itertools import chain, product
from typing import Any

from rewardsteer.data.text_ids import added_ids

# Pieces in the cache: some 30 MB with their ids.
MAX_PIECES = 100_000
# Longer pieces (texts without spaces) rarely repeat.
_MAX_LENGTH = 40
# Cut between a character and a following space. Other white space stays with the text after it.
_PIECE = re.compile(r"\s*\S+(?:[^\S ]\s*\S*)*|\s+")
_CHARACTERS = (
    "aZéßñжאم中あ한०7²½'’\".,;:!?-_/\\()[]{}<>|#@$%&*+=~^`\n\r\t\u00a0\u2028\u200b\u0301\u200d😀€—«"
)


class SegmentTokenizer:
    """Wraps a tokenizer and gives the same ids faster; other attributes are the tokenizer's own.

    Args:
        tokenizer: a fast tokenizer of transformers for which `cuts_at_spaces` is true.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._known: dict[str, list[int]] = {}
        self._written: tuple[Any, str] = (None, "")
        self._before, self._behind = _special_ids(tokenizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def __call__(self, text: str | Sequence[str], *, add_special_tokens: bool = True) -> Any:
        """``{"input_ids": …}`` of one or several texts, as the tokenizer's own call returns."""
        texts = [text] if isinstance(text, str) else list(text)
        pieces = [_PIECE.findall(one) for one in texts]
        known = self._known
        new = list(set().union(*pieces).difference(known))
        found = {}
        if new:
            encoded = self._backend.encode_batch_fast(new, add_special_tokens=False)
            found = {piece: one.ids for piece, one in zip(new, encoded, strict=True)}
            known.update(found)
        rows = [list(chain.from_iterable(map(known.__getitem__, several))) for several in pieces]
        for piece in found:
            if len(piece) > _MAX_LENGTH:
                del known[piece]
        if len(known) > MAX_PIECES:
            known.clear()
        if add_special_tokens:
            rows = [[*self._before, *ids, *self._behind] for ids in rows]
        return {"input_ids": rows[0] if isinstance(text, str) else rows}

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """The tokenizer's own result, cached for a repeated call (both rows of a pair)."""
        key = (conversation, options)
        if self._written[0] != key:
            text = self._tokenizer.apply_chat_template(conversation, **options)
            self._written = (key, text)
        return self._written[1]


def segmented(tokenizer: Any) -> Any:
    """A `SegmentTokenizer` where the tokenizer allows it, otherwise the tokenizer itself."""
    return SegmentTokenizer(tokenizer) if cuts_at_spaces(tokenizer) else tokenizer


def cuts_at_spaces(tokenizer: Any) -> bool:
    """Whether the ids of every text are those of its pieces, cut before spaces."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "encode_batch_fast"):
        return False
    parts = json.loads(backend.to_str())
    return (
        _plain_bpe(parts) and _byte_level(parts["pre_tokenizer"])
        and _keeps_places(parts["normalizer"]) and _plain_added_tokens(parts["added_tokens"])
        and parts["truncation"] is None and parts["padding"] is None
        and _adds_plainly(tokenizer) and _stands_the_trial(tokenizer)
    )


def _plain_bpe(parts: dict[str, Any]) -> bool:
    model = parts["model"]
    return (
        model["type"] == "BPE" and not model.get("dropout")
        and not model.get("continuing_subword_prefix") and not model.get("end_of_word_suffix")
    )


def _byte_level(pre: dict[str, Any] | None) -> bool:
    """Whether words are split by regular expressions and bytes, without an added prefix space."""
    if pre is None:
        return False
    steps = pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    known = {"ByteLevel", "Split", "Digits", "Punctuation"}
    return (
        all(step["type"] in known for step in steps)
        and not any(step.get("add_prefix_space") for step in steps)
        and any(step["type"] == "ByteLevel" and step.get("use_regex", True) for step in steps)
        | any(step["type"] == "Split" for step in steps)
    )


def _keeps_places(normalizer: dict[str, Any] | None) -> bool:
    """Whether a normalizer never changes text across a space."""
    if normalizer is None:
        return True
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    return all(step["type"] in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase") for step in steps)


def _plain_added_tokens(tokens: list[dict[str, Any]]) -> bool:
    """Whether no added token spans a cut or depends on the white space or words beside it."""
    return not any(
        re.search(r"[^ ] ", token["content"]) or token["lstrip"] or token["rstrip"]
        or token["single_word"]
        for token in tokens
    )


def _adds_plainly(tokenizer: Any) -> bool:
    before, behind = _special_ids(tokenizer)
    for text in ("a", "a b", "12 x\n"):
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        if list(tokenizer(text)["input_ids"]) != [*before, *bare, *behind]:
            return False
    return True


def _special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Special ids that the tokenizer adds before and after a text."""
    bare, dressed = (
        list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True)
    )
    return added_ids(bare, dressed)


def _stands_the_trial(tokenizer: Any) -> bool:
    """Whether the pieces give the ids of the whole text, for all pairs of characters at a cut."""
    texts = [
        f"x{first} {more}{second}y"
        for first, second in product(_CHARACTERS, _CHARACTERS) for more in ("", " ")
    ]
    whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    parts = SegmentTokenizer(tokenizer)(texts, add_special_tokens=False)["input_ids"]
    return [list(ids) for ids in whole] == parts
