"""Named full configurations shipped in the package. No torch here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rewardsteer.configuration import read_yaml
from rewardsteer.errors import ConfigError
from rewardsteer.registry import nearest

FOLDER = Path(__file__).parent.parent / "recipes"
# Folders of recipes for rows of one's own, and the source that reads them.
OWN_ROWS = {
    "pairs": "pairs", "ratings": "ratings", "ranked": "ranked", "labels": "labels",
    "steps": "stepwise",
}
# The source of an objective's rows where it is not preference pairs.
_SOURCES = {
    "regression": "ratings", "listwise": "ranked", "labels": "labels", "outcome": "labels",
    "process": "stepwise",
}


def list_recipes(command: Literal["train", "distil", "any"] = "train") -> list[str]:
    """Names such as ``tldr/farma``, sorted: those of ``rewardsteer train``, those of ``rewardsteer
    distil`` (``*/distil``), or both."""
    names = sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))
    return [
        name for name in names
        if command == "any" or name.endswith("/distil") == (command == "distil")
    ]


def recipe_text(name: str) -> str:
    """A recipe as it is written, comments included; checked by `read_recipe`."""
    return (own_file(name) or FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def own_file(name: str) -> Path | None:
    """The user's YAML file that a recipe is; None for a shipped one."""
    return Path(name) if name.endswith((".yaml", ".yml")) else None


def recipe_title(name: str) -> str:
    """The first sentence of a shipped recipe's first comment."""
    comment = []
    for line in recipe_text(name).splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return " ".join(comment).partition(". ")[0].removesuffix(".") + "."


def read_recipe(
    name: str, command: Literal["train", "distil", "any"] = "any"
) -> dict[str, Any]:
    """The settings of a shipped recipe or of a YAML file.

    Args:
        name: of the recipe or file.
        command: that the recipe is for; any: also recipes of other commands are read.

    Raises:
        ConfigError: neither (lists the shipped ones), or a recipe of another command.
    """
    known = list_recipes(command)
    if name in known:
        return read_yaml(FOLDER / f"{name}.yaml")
    file = own_file(name)
    if file is not None:
        return read_yaml(file)
    if name in list_recipes("any"):
        other = "distil" if command == "train" else "train"
        raise ConfigError(
            f"The recipe {name} is one of 'rewardsteer {other}', not of 'rewardsteer {command}'."
        )
    own = own_recipe(name)
    hint = nearest(name, known) if own == name else f" Did you mean {own!r}?"
    raise ConfigError(
        f"Unknown recipe {name!r}.{hint} Known: {', '.join(known)}; or give a "
        "YAML file."
    )


def own_recipe(name: str) -> str:
    """The whole name of a recipe for rows of one's own, such as ``pairs/bt`` of ``bt``; other names
    as they are."""
    known = list_recipes()
    return next((f"{one}/{name}" for one in OWN_ROWS if f"{one}/{name}" in known), name)


def own_source(settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The source that reads rows of one's own in place of a recipe's.

    Args:
        settings: of the recipe.
        path: of the rows.
    """
    names = [
        term.get("name") for phase in settings.get("phases") or []
        for term in phase.get("objective") or []
    ]
    wanted = next((_SOURCES[name] for name in names if name in _SOURCES), "pairs")
    data = settings.get("data") or {}
    given = [one for one in data.get("sources") or [] if one.get("name") == wanted]
    options = {"options": given[0]["options"]} if given and given[0].get("options") else {}
    return {"name": wanted, "path": path, **options}


def recipe_data(name: str) -> dict[str, Any]:
    """The data section of a recipe.

    Raises:
        ConfigError: no such recipe, or it has none.
    """
    settings = read_recipe(name)
    if not isinstance(settings.get("data"), dict):
        raise ConfigError(f"The recipe {name} has no data section; give a source.")
    return dict(settings["data"])


def source_data(source: str) -> tuple[list[str], dict[str, Any]]:
    """How the recipes named after a source prepare it: their names and their data settings without
    the sources; nothing where there are none.

    The template and what else the first sets holds; the others add what it does not set. The
    generated task has no published form, and its rows serve policies as well.
    """
    if source == "arithmetic":
        return [], {}
    order = (
        "bt", "baseline", "farma", "pargs", "genarm", "regression", "attributes", "listwise",
        "labels",
    )
    known = list_recipes()
    names = [f"{source}/{name}" for name in order if f"{source}/{name}" in known]
    names = names or [name for name in known if name == f"{source}/goal"]
    settings: dict[str, Any] = {}
    used: list[str] = []
    for name in names:
        added = {
            key: value for key, value in recipe_data(name).items()
            if key not in ("source", "sources") and key not in settings
        }
        if added:
            settings, used = settings | added, [*used, name]
    return used, settings
