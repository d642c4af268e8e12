"""Our template as a chat template, with which vLLM's server renders conversations."""

import json
from typing import Any

from rewardsteer.data.template import Template

# A list that begins with a system message, whether the conversation has one or not.
_SYSTEM = (
    "{%- if not messages or messages[0]['role'] != 'system' -%}"
    "{%- set messages = [{'role': 'system', 'content': SYSTEM}] + messages -%}{%- endif -%}"
)


def chat_template(template: Template, tokenizer: Any) -> str:
    """The Jinja source that writes what `rewardsteer.data.render.render_prompt` writes."""
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
    """The beginning-of-text token that the tokenizer adds, if the template lets it; "" for a chat
    template's text, which is tokenized as it is."""
    if not template.add_special_tokens:
        return ""
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return tokenizer.bos_token if ids and ids[0] == tokenizer.bos_token_id else ""


def _text(value: str) -> str:
    """A Jinja literal."""
    return json.dumps(value, ensure_ascii=False)
