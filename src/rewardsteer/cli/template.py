"""The ``--template`` option: the template of prompts and responses, the same on every command."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rewardsteer.data.template import Template

TemplateOption = Annotated[
    str | None,
    typer.Option(
        "--template", metavar="auto|chat|text|FILE|JSON",
        help="Format of prompts and responses: chat (the tokenizer's chat template), text (plain "
        "formats), a YAML file of template settings, or the settings as {json}. auto: that of "
        "the reward model's training, else chat if the tokenizer has a chat template, else text.",
    ),
]


def read_template(value: str | None) -> "Template | None":
    """The template of the option; None where nothing or ``auto`` is given.

    Raises:
        ConfigError: the value is neither a kind, nor a readable file, nor settings.
    """
    import json
    from pathlib import Path

    from rewardsteer.configuration import load_config
    from rewardsteer.data.template import Template
    from rewardsteer.errors import ConfigError

    if value is None or value == "auto":
        return None
    if value in ("chat", "text"):
        return Template(kind=value)
    if value.lstrip().startswith("{"):
        try:
            settings: Any = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"--template is no valid JSON: {error}.") from error
        return load_config(Template, settings)
    if not Path(value).is_file():
        raise ConfigError(
            f"Expected --template as auto, chat, text, a YAML file or settings as {{json}}; there "
            f"is no file {value}."
        )
    return load_config(Template, Path(value))


def show_template(template: "Template | None", carrier: str) -> None:
    """Print once, on standard error, how prompts and responses are written.

    Args:
        template: with its kind resolved; None where the kind of reward model writes texts itself.
        carrier: the model or tokenizer that has the chat template.
    """
    if template is None:
        typer.echo(f"template: that of {carrier}'s kind", err=True)
    elif template.kind == "chat":
        typer.echo(f"template: chat (the chat template of {carrier})", err=True)
    else:
        typer.echo(
            f"template: text (prompts as {template.prompt!r}, conversations with "
            f"{template.turns.get('user', '')!r})", err=True,
        )
