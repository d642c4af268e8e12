"""A template of ours as the chat template with which vLLM's server writes conversations."""

import json
from typing import Any

from rewardsteer.data.template import Template

# A list that begins with a system message, whether the conversation has one or not.
_SYSTEM = (
    "{%- if not messages or messages[0]['role'] != 'system' -%}"
    "{%- set messages = [{'role': 'system', 'content': SYSTEM}] + messages -%}{%- endif -%}"
)


def chat_template(template: Template, tokenizer: Any) -> str:
    """The Jinja source that writes what `rewardsteer.data.render.render_prompt` writes.

    Args:
        template: resolved, with the tokenizer that carries it.
        tokenizer: that tokenizer.
    """
    system = ""
    if template.system is not None:
        system = _SYSTEM.replace("SYSTEM", _text(template.system))
    if template.kind == "chat":
        return system + str(tokenizer.chat_template)
    before, _, after = template.prompt.partition("{prompt}")
    known = ", ".join(sorted(template.turns))
    turns = "{%- for message in messages -%}"
    for number, (role, form) in enumerate(template.turns.items()):
        begin, *more = form.split("{content}")
        parts = [_text(begin)]
        for text in more:
            parts += ["message['content']", _text(text)]
        word = "elif" if number else "if"
        turns += f"{{%- {word} message['role'] == {_text(role)} -%}}{{{{- {' + '.join(parts)} -}}}}"
    turns += (
        "{%- else -%}{{- raise_exception('The template has no format for the role ' "
        f"+ message['role'] + '; it knows {known}.') -}}}}{{%- endif -%}}{{%- endfor -%}}"
    )
    opening = f"{{{{- {_text(_beginning(template, tokenizer) + before)} -}}}}"
    return f"{opening}{system}{turns}{{{{- {_text(template.answer + after)} -}}}}"


def _beginning(template: Template, tokenizer: Any) -> str:
    """What the tokenizer puts before a text, where the template lets it; a chat template's text is
    read as it is."""
    if not template.add_special_tokens:
        return ""
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return tokenizer.bos_token if ids and ids[0] == tokenizer.bos_token_id else ""


def _text(value: str) -> str:
    """A Jinja literal."""
    return json.dumps(value, ensure_ascii=False)
