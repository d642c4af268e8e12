"""The problems of public maths benchmarks, read from their published files.

A benchmark is a `Format` in a file of its own and a row of `BENCHMARKS`; one outside this package
is named ``package.module:ATTRIBUTE``.
"""

from pathlib import Path

from rewardsteer.errors import DataError
from rewardsteer.evaluation.benchmarks.base import Format, Problem
from rewardsteer.registry import Registry

_PLACE = "rewardsteer.evaluation.benchmarks"
BENCHMARKS = Registry(
    "benchmark",
    {
        "gsm8k": f"{_PLACE}.gsm8k:GSM8K",
        "math": f"{_PLACE}.math:MATH",
        "gsm-hard": f"{_PLACE}.gsm_hard:GSM_HARD",
        "mawps": f"{_PLACE}.mawps:MAWPS",
        "asdiv": f"{_PLACE}.asdiv:ASDIV",
        "algebra222": f"{_PLACE}.algebra222:ALGEBRA222",
        "svamp": f"{_PLACE}.svamp:SVAMP",
    },
)
_ID_FIELDS = ("ID", "id", "unique_id", "idx")


def load_problems(benchmark: str, path: str | Path) -> list[Problem]:
    """Read all problems of a benchmark file.

    A problem's id is the row's own, or the benchmark's name with the row's index from 0.

    Args:
        benchmark: a name in `BENCHMARKS`, or ``package.module:ATTRIBUTE``.
        path: the published file; the text forms may be gzip-compressed.

    Raises:
        ConfigError: the benchmark is unknown.
        DataError: the file is absent or malformed, a field is missing or an id occurs twice.
    """
    known: Format = BENCHMARKS.get(benchmark)
    file = Path(path)
    if not file.is_file():
        raise DataError(f"Expected the file of {benchmark} at {file}, there is no such file.")
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for index, (place, row) in enumerate(known.rows(file)):
        question, answer = known.read(row, place)
        own = next((row[name] for name in _ID_FIELDS if row.get(name) not in (None, "")), None)
        name = f"{benchmark}-{index}" if own is None else str(own)
        if name in places:
            raise DataError(f"{place}: the id {name!r} was already used at {places[name]}.")
        places[name] = place
        problems.append(Problem(name, benchmark, question, answer))
    return problems
