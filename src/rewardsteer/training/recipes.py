"""Named full configurations shipped in the package. No torch here."""

from pathlib import Path
from typing import Any

from rewardsteer.configuration import read_yaml
from rewardsteer.errors import ConfigError
from rewardsteer.registry import nearest

FOLDER = Path(__file__).parent.parent / "recipes"


def list_recipes() -> list[str]:
    """Names such as ``tldr/farma``, sorted."""
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a shipped recipe or of a YAML file.

    Raises:
        ConfigError: neither; lists the shipped ones.
    """
    known = list_recipes()
    if name in known:
        return read_yaml(FOLDER / f"{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        return read_yaml(Path(name))
    raise ConfigError(
        f"Unknown recipe {name!r}.{nearest(name, known)} Known: {', '.join(known)}; or give a "
        "YAML file."
    )
