"""A benchmark of reward models with its items, from a file, a folder or the hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewardsteer.data.sources.files import SUFFIXES, Row, kind, read_file
from rewardsteer.data.sources.reading import Reading, read_rows
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.evaluation.reward_benchmarks import REWARD_BENCHMARKS
from rewardsteer.evaluation.reward_benchmarks.base import Item, RewardBenchmark


def load_benchmark(
    name: str, path: str | Path | None = None, **options: Any
) -> tuple[RewardBenchmark, list[Item]]:
    """A benchmark with its items.

    Args:
        name: in `REWARD_BENCHMARKS`, or ``package.module:Class``.
        path: the published file, or a folder of them; None: the hub, or its cache here.
        options: of the benchmark (``threshold``).

    Raises:
        ConfigError: unknown name, or an option that the benchmark does not have.
        DataError: no such data, or a malformed row.
    """
    made: type[RewardBenchmark] = REWARD_BENCHMARKS.get(name)
    unknown = [one for one in options if one not in made.options]
    if unknown:
        raise ConfigError(
            f"The benchmark {name} has no option {', '.join(unknown)}; its options: "
            f"{', '.join(made.options) or 'none'}."
        )
    benchmark = made(**options)
    return benchmark, benchmark.items(_rows(benchmark, path))


def _rows(benchmark: RewardBenchmark, path: str | Path | None) -> Iterator[tuple[str, Row]]:
    if path is None and not benchmark.hub:
        raise DataError(
            f"This benchmark is published in several data sets ({benchmark.source}); give the file "
            "or folder of one or more of them."
        )
    if path is None:
        reading = Reading(splits={"train": benchmark.split})
        yield from read_rows("train", None, benchmark.hub, reading=reading)
        return
    place = Path(path)
    if not place.is_dir():
        yield from read_rows("train", str(place), "")
        return
    # A hub folder holds several splits; without a file named like the split, all files are used.
    files = sorted(one for one in place.rglob("*") if kind(one) in SUFFIXES)
    named = [one for one in files if one.name.startswith(benchmark.split)]
    if not files:
        raise DataError(f"Expected data files ({', '.join(SUFFIXES)}) in {place}, found none.")
    for file in named or files:
        yield from read_file(file)
