"""Short digests that identify what results were computed from: contents, vocabularies and
templates."""

import hashlib
import json
from typing import Any

from rewardsteer.data.template import Template, resolve


def digest(value: Any) -> str:
    """16 hexadecimal digits of a JSON value."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def vocabulary_hash(tokenizer: Any) -> str:
    """A hash of all tokens with their ids, added ones included.

    A padding token at the end of the vocabulary is left out: this package adds one where a
    tokenizer has none, and data never contains it.
    """
    vocabulary = dict(tokenizer.get_vocab())
    padding = tokenizer.pad_token
    last = padding in vocabulary and vocabulary[padding] == max(vocabulary.values())
    if last and padding != tokenizer.eos_token:
        del vocabulary[padding]
    return digest(sorted(vocabulary.items()))


def template_hash(template: Template, tokenizer: Any) -> str:
    """A hash of the template's settings and, for ``chat``, of the tokenizer's chat template."""
    template = resolve(template, tokenizer)
    values: dict[str, Any] = {"template": template.model_dump(mode="json")}
    if template.kind == "chat":
        values["chat_template"] = tokenizer.chat_template
    return digest(values)
