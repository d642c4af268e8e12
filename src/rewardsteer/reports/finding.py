"""Search for folders and files with results, and their names on a page."""

from collections.abc import Sequence
from pathlib import Path

from rewardsteer.outputs import read_json

CURVE, SEEDS = "overoptimization.json", "seeds.json"
FILES = ("metrics.jsonl", "metrics.json", "summary.json", CURVE)
INSPECTIONS = "*inspections.jsonl"
# Default files of the commands that write figures over several runs.
_OVER_RUNS = (SEEDS, "runs.json")
_DEPTH = 3  # levels of folders that are searched


def results_in(folder: Path, depth: int = _DEPTH) -> list[Path]:
    """The folder if it holds results, else the folders inside it that do; files of figures over
    several runs come first.

    Raises:
        DataError: a damaged file.
    """
    found = [folder / name for name in _OVER_RUNS if is_over_runs(folder / name)]
    if any((folder / name).is_file() for name in FILES) or any(folder.glob(INSPECTIONS)):
        return [*found, folder]
    if depth == 0 or not folder.is_dir():
        return found
    below = sorted(one for one in folder.iterdir() if one.is_dir() and not one.is_symlink())
    return found + [place for one in below for place in results_in(one, depth - 1)]


def is_over_runs(place: Path) -> bool:
    """Whether a file holds figures of methods over several runs, since its name may be used for
    other content.

    Raises:
        DataError: a damaged file.
    """
    content = read_json(place) if place.is_file() else None
    return isinstance(content, dict) and {"methods", "runs", "baseline"} <= content.keys()


def names_of(places: Sequence[str | Path]) -> list[str]:
    """The last parts of each path, as many as make the names unique; files without their ending.
    """
    paths = [Path(place).resolve() for place in places]
    parts = [(one.with_suffix("") if one.is_file() else one).parts for one in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return names
