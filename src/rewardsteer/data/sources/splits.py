"""Choice of a data set's splits, or a folder's files, for the splits ``train`` and ``test``."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rewardsteer.data.sources import NoSplitError
from rewardsteer.data.sources.files import SUFFIXES, kind
from rewardsteer.errors import DataError

# Other common names of these splits, the likeliest first.
ALIASES = {
    "train": ("train", "train_prefs", "training"),
    "test": (
        "test", "test_prefs", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout",
    ),
}
_BEGINNINGS = {"train": ("train",), "test": ("test", "valid", "eval", "dev")}
_SHARD = re.compile(r"-\d+-of-\d+$")


def choose_splits(
    names: Sequence[str], split: str, given: Mapping[str, str], place: object,
    note: Callable[[str], None],
) -> list[str]:
    """The names of a data set's splits that make up ``split``.

    Args:
        names: of the data set's splits.
        given: ``train`` or ``test`` → the data set's name, where the settings give it.
        place: of the data set, for messages.
        note: called with a note where the choice is not obvious.

    Raises:
        NoSplitError: there is no test split.
        DataError: there is no training split, or the one in the settings does not exist.
    """
    wanted = given.get(split)
    if wanted is not None:
        if wanted not in names:
            raise DataError(
                f"Expected the split {wanted!r} in {place}, it has {', '.join(names) or 'none'}."
            )
        return [wanted]
    free = [name for name in names if name not in given.values()]
    for alias in ALIASES[split]:
        if alias in free:
            if split == "test":
                left = [n for n in free if n != alias and n in ALIASES["test"]]
                if left:
                    note(
                        f"{place}: the split {alias} is the test split; {', '.join(left)} "
                        "is not read."
                    )
                elif alias != "test":
                    note(f"{place}: the split {alias} is read as the test split.")
            return [alias]
    found = [name for name in free if name.startswith(_BEGINNINGS[split])]
    if found:
        return found
    if split == "test":
        raise NoSplitError(split)
    if len(free) == 1 and not free[0].startswith(_BEGINNINGS["test"]):
        return free
    raise DataError(
        f"Expected a training split in {place}, it has {', '.join(names) or 'no splits'}; say "
        "which is which, for example 'sources.0.splits={train: NAME, test: NAME}'."
    )


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """The data files of a folder, by the split in the name of the file or its folder."""
    files = _data_files(folder.iterdir())
    for pattern in ("*/*", "*/*/*"):
        if not files:
            files = _data_files(folder.glob(pattern))
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_split_name(file.relative_to(folder)) or "", []).append(file)
    if set(found) == {""}:
        return {"train": files}
    found.pop("", None)
    return found


def _data_files(files: Iterator[Path]) -> list[Path]:
    return sorted(
        file for file in files
        if file.is_file() and kind(file) in SUFFIXES and not file.name.startswith(".")
    )


def _split_name(file: Path) -> str | None:
    beginnings = (*_BEGINNINGS["train"], *_BEGINNINGS["test"], *ALIASES["test"])
    own = _SHARD.sub("", file.name.split(".")[0]).split("-")[0]
    for name in (own, *reversed([part.name for part in file.parents])):
        if name.lower().startswith(beginnings):
            return name
    return None
