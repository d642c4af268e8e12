"""Error messages about settings: the name, the file it is from, and a suggestion."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from rewardsteer.faults import Fault, faults
from rewardsteer.registry import nearest


class Origin(NamedTuple):
    """The origin of settings: a file, and the names of settings changed by overrides."""

    file: Path | None
    changed: Sequence[str]

    def of(self, name: str) -> str:
        """`` in FILE`` where the setting is from the file, else ""."""
        begun = (one for one in self.changed if f"{name}.".startswith(f"{one}.") or (
            one.startswith(f"{name}.")
        ))
        return "" if self.file is None or any(begun) else f" in {self.file}"


def explain(kind: type[BaseModel], error: ValidationError, given: Any, origin: Origin) -> str:
    """Sentences that explain all errors of settings."""
    sentences = []
    for fault in faults(error.errors(), given):
        name, place = fault.name, origin.of(fault.name)
        if "extra_forbidden" in fault.kinds:
            sentences.append(_unknown(kind, fault.path, place))
        elif "missing" in fault.kinds:
            file = "" if origin.file is None else f" or add it to {origin.file}"
            sentences.append(
                f"The setting {name!r} is required and was not given; write {name}=VALUE{file}."
            )
        else:
            subject = f"The setting {name!r}{place} is wrong" if name else (
                f"The settings{place} do not fit"
            )
            sentences.append(f"{subject}: {fault.sentence}{_advice(kind, fault)}")
    return " ".join(sentences)


def _unknown(kind: type[BaseModel], path: Sequence[int | str], place: str) -> str:
    *above, leaf = path
    name = ".".join(map(str, path))
    new = getattr(_class_at(kind, above), "renamed", {}).get(leaf)
    if new is not None:
        return f"The setting {name!r}{place} is now called {'.'.join(map(str, (*above, new)))!r}."
    known = _known_fields(kind, above)
    return f"Unknown setting {name!r}{place}.{_hint(kind, path, known)} Known here: " + (
        f"{', '.join(known)}."
    )


def _advice(kind: type[BaseModel], fault: Fault) -> str:
    """How to write a setting of the expected form, where the form's name is not enough; else ""."""
    parts = _known_fields(kind, fault.path)
    if {"model_type", "model_attributes_type"} & set(fault.kinds) and parts:
        return f" Its parts are {', '.join(f'{fault.name}.{part}' for part in parts)}."
    if {"list_type", "tuple_type"} & set(fault.kinds):
        return f" Write a list: {fault.name}=[…]."
    return ""


def _hint(kind: type[BaseModel], place: Sequence[int | str], known: list[str]) -> str:
    """The setting that was probably meant: by another library's name for it, the same name in
    another section, or the most similar name in any section."""
    *above, leaf = (str(part) for part in place)
    here = _class_at(kind, place[:-1])
    if here is not None and (alias := getattr(here, "aliases", {}).get(leaf)) is not None:
        inside = alias.split("=")[0] in known
        return f" Did you mean {'.'.join([*above, alias]) if inside else alias!r}?"
    everywhere: dict[str, list[str]] = {}
    for name in _all_settings(kind):
        everywhere.setdefault(name.rpartition(".")[2], []).append(name)
    if len(everywhere.get(leaf, ())) == 1:
        return f" Did you mean {everywhere[leaf][0]!r}?"
    close = difflib.get_close_matches(leaf, [*known, *everywhere], n=1, cutoff=0.5)
    if not close or close[0] in known:
        return nearest(leaf, known)
    return f" Did you mean {' or '.join(map(repr, everywhere[close[0]]))}?"


def _all_settings(kind: type[BaseModel]) -> list[str]:
    """Dotted names of all settings outside lists."""
    found = []
    for name, field in kind.model_fields.items():
        found.append(name)
        inner = _config_class(field.annotation)
        if inner is not None and "list" not in str(field.annotation):
            found += [f"{name}.{one}" for one in _all_settings(inner)]
    return found


def _known_fields(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Field names of the config class at ``path`` within ``kind``."""
    found = _class_at(kind, path)
    return [] if found is None else sorted(found.model_fields)


def _class_at(kind: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel] | None:
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
