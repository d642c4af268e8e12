"""Typed settings: YAML file, then dotted overrides, checked; the resolved form is saved with runs.

OmegaConf reads YAML, merges ``a.b=c`` flags and resolves interpolations; pydantic checks types and
refuses unknown keys. Each part of the package owns the config class of what it builds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewardsteer.errors import ConfigError
from rewardsteer.registry import nearest


class Config(BaseModel):
    """Base of all settings: immutable, unknown keys refused.

    Attributes:
        aliases: names that other libraries give to settings, with the names here; suggested when
            somebody types one.
        renamed: former names of settings, with the names now; refused with the new name.
    """

    aliases: ClassVar[dict[str, str]] = {}
    renamed: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


# What every library's generator takes.
MOST_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Count = Annotated[int, Field(ge=1)]
NonNegativeFinite = Annotated[float, Field(ge=0, allow_inf_nan=False)]

C = TypeVar("C", bound=Config)


def load_config(
    kind: type[C], source: Path | dict[str, Any], overrides: Sequence[str] = ()
) -> C:
    """Read and check settings.

    Args:
        kind: the config class to build.
        source: a YAML file, or the settings themselves.
        overrides: ``dotted.name=value`` items, YAML values; applied last.

    Raises:
        ConfigError: unreadable file, malformed override, unknown key (the nearest known one is
            suggested) or value of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for item, after in zip(overrides, [*overrides[1:], "="], strict=False):
        if "=" not in item:
            value = "VALUE" if "=" in after else after
            raise ConfigError(
                f"Expected a setting as dotted.name=value, got {item!r}; write "
                f"'{item}={value}'."
            )
    subject = "The settings"
    try:
        base = source if isinstance(source, dict) else read_yaml(source)
        merged = OmegaConf.create(base)
        for item in overrides:
            subject = f"The setting {item!r}"
            name, _, text = item.partition("=")
            value = OmegaConf.from_dotlist([f"value={text}"])["value"]
            # Unlike merging a second mapping, this reaches into lists: sources.0.path=x.
            OmegaConf.update(merged, name, value, merge=False, force_add=True)
        subject = "The settings"
        values = OmegaConf.to_container(merged, resolve=True)
    except ConfigError:
        raise
    # Hostile nesting and impossible values come out of the parsers as many unrelated kinds.
    except (
        OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError,
        RecursionError,
    ) as error:
        raise ConfigError(f"{subject} cannot be read: {_fault(error)}.") from error
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(kind, error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `ConfigError` when it is missing or is no mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The configuration file {path} is not valid YAML, {_fault(error)}; mend the file "
            "there."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, got {type(values).__name__}.")
    return values


def _fault(error: Exception) -> str:
    """What a parser complains of, in one line; of YAML with the line and column."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        found = ", ".join(one for one in (error.problem, error.context) if one)
        return f"line {mark.line + 1}, column {mark.column + 1}: {found}"
    return " ".join(str(error).split()).rstrip(".")


def save_config(config: Config, path: Path) -> None:
    """Write the resolved settings as YAML."""
    from rewardsteer.outputs import write_text

    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    sentences = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _known_fields(kind, item["loc"][:-1])
            new = getattr(_class_at(kind, item["loc"][:-1]), "renamed", {}).get(item["loc"][-1])
            if new is not None:
                place = ".".join(str(part) for part in (*item["loc"][:-1], new))
                sentences.append(f"The setting {name!r} is now called {place!r}.")
                continue
            hint = _hint(kind, item["loc"], known)
            sentences.append(f"Unknown setting {name!r}.{hint} Known here: {', '.join(known)}.")
        elif item["type"] == "missing":
            sentences.append(f"The setting {name!r} is required and was not given.")
        else:
            problem, value = _problem(item), item["input"]
            subject = f"The setting {name!r} is wrong" if name else "The settings do not fit"
            # All settings together are no value that anybody gave.
            sentences.append(f"{subject}: {problem}{f', got {value!r}' if name else ''}.")
    return " ".join(sentences)


def _problem(item: Any) -> str:
    """What is wrong with a value, bounds in words."""
    bounds = item.get("ctx") or {}
    # The least positive number that a computation holds is nobody's idea of a bound.
    if "gt" in bounds or 0 < bounds.get("ge", 0) < 1e-3:
        return f"it must be above {bounds.get('gt', 0):g}"
    for name, words in (("ge", "at least"), ("le", "at most"), ("lt", "below")):
        if isinstance(bounds.get(name), int | float):
            return f"it must be {words} {bounds[name]:g}"
    return str(item["msg"]).removeprefix("Value error, ")


def _hint(kind: type[BaseModel], place: tuple[int | str, ...], known: list[str]) -> str:
    """What was probably meant: another library's name for a setting, the same name in another
    section, or the nearest name in this one."""
    *above, leaf = (str(part) for part in place)
    here = _class_at(kind, place[:-1])
    if here is not None and (alias := getattr(here, "aliases", {}).get(leaf)) is not None:
        inside = alias.split("=")[0] in known
        return f" Did you mean {'.'.join([*above, alias]) if inside else alias!r}?"
    elsewhere = [name for name in _all_settings(kind) if name.rpartition(".")[2] == leaf]
    if len(elsewhere) == 1:
        return f" Did you mean {elsewhere[0]!r}?"
    return nearest(leaf, known)


def _all_settings(kind: type[BaseModel]) -> list[str]:
    """Dotted names of all settings that are not within lists."""
    found = []
    for name, field in kind.model_fields.items():
        found.append(name)
        inner = _config_class(field.annotation)
        if inner is not None and "list" not in str(field.annotation):
            found += [f"{name}.{one}" for one in _all_settings(inner)]
    return found


def _known_fields(kind: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Field names of the config class that ``path`` leads to from ``kind``."""
    found = _class_at(kind, path)
    return [] if found is None else sorted(found.model_fields)


def _class_at(kind: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    current: Any = kind
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            if field is None:
                continue
            current = _config_class(field.annotation)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return current
    return None


def _config_class(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _config_class(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None
