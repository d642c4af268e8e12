"""The ``--kind`` option: the kind of a reward model, where it cannot be detected."""

from typing import Annotated, Any

import typer

KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind", metavar="NAME",
        help="Kind of the reward model (docs/reward_models.md), or package.module:Class of your "
        "own. Default: recognised by config.json and the names of the weights.",
    ),
]

KindOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--kind-option", metavar="NAME=VALUE",
        help="Option of the kind, as in docs/reward_models.md (attribute=helpfulness, negate=true, "
        "reference=FOLDER); repeatable.",
    ),
]


# Arguments of `rewardsteer.models.kinds.load_scorer` that are no options of a kind.
_OTHERS = ("kind", "device", "dtype", "template", "trust_remote_code", "revision", "pairs")


def read_kind(name: str | None, items: list[str] | None) -> dict[str, Any]:
    """``kind`` (a known kind or None) and its options; see `check_kind` and `kind_options`."""
    check_kind(name)
    return {"kind": name, **kind_options(items)}


def kind_options(items: list[str] | None) -> dict[str, Any]:
    """Options of a kind by name, with values parsed as YAML.

    Raises:
        ConfigError: an option is malformed, or has a command-line option of its own.
    """
    import yaml

    from rewardsteer.errors import ConfigError

    found: dict[str, Any] = {}
    for item in items or ():
        name, is_pair, value = item.partition("=")
        if not is_pair or not name.isidentifier():
            raise ConfigError(f"Expected --kind-option name=value, got {item!r}.")
        if name in _OTHERS:
            raise ConfigError(
                f"--kind-option {name} is no option of a kind; use the command's own option."
            )
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"The value of --kind-option {item!r} is no valid YAML.") from error
    return found


def check_kind(name: str | None) -> None:
    """Refuse an unknown kind, before anything is loaded.

    Raises:
        ConfigError: lists the known ones.
    """
    if name is not None:
        from rewardsteer.models.kinds import KINDS

        KINDS.check(name)
