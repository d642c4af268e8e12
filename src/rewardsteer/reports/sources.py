"""Result folders: their kind, their content, and the files that were read.

A training run contains ``metrics.jsonl``; ``evaluate preference``, ``correctness``, ``benchmark``,
``responses``, ``guide`` and ``answers`` write ``metrics.json``, ``evaluate generation`` and
``demo`` ``summary.json``, ``evaluate overoptimization`` ``overoptimization.json``; ``inspect``
writes ``*inspections.jsonl``. A folder may be several of these. Figures over several comparisons
are one file, ``seeds.json`` of ``evaluate generation --seeds`` or what ``evaluate runs`` wrote.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.data.digests import digest
from rewardsteer.errors import DataError
from rewardsteer.evaluation.inspection_records import Inspection
from rewardsteer.faults import checked
from rewardsteer.outputs import file_name, read_json, read_jsonl
from rewardsteer.records import EvalRecord
from rewardsteer.reports.finding import (
    CURVE,
    FILES,
    INSPECTIONS,
    SEEDS,
    is_over_runs,
    names_of,
    results_in,
)
from rewardsteer.reports.forms import Comparison, LogLine, Overoptimization, OverRuns, formed
from rewardsteer.reports.results import Outcome, Run, sort_metrics

_RECORDS = 60  # prompts shown side by side
_INSPECTIONS = 12
_PROMPT = 240  # characters of a prompt that are kept of every record


class Sources:
    """Reads files and records the SHA-256 of each, which the page lists."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """Digest of all files read: its first 16 hexadecimal digits."""
        return digest(sorted(self.digests.items()))

    def json(self, path: Path) -> Any:
        """Read by `read_json` and record the file's digest."""
        self._note(path)
        return read_json(path)

    def lines(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        """Read by `read_jsonl` and record the file's digest."""
        self._note(path)
        return read_jsonl(path)

    def _note(self, path: Path) -> None:
        try:
            whole = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            return  # the read that follows raises the error
        self.digests[str(path)] = whole[:16]


def load_runs(folders: Sequence[Path], sources: Sources) -> list[Run]:
    """Read result folders, the result folders inside a folder, or files over several runs.

    Raises:
        DataError: a folder that holds no results, or a damaged file.
    """
    found: list[Path] = []
    for folder in folders:
        if folder.suffix != ".jsonl" and is_over_runs(folder):
            found.append(folder)
            continue
        if folder.is_file():
            raise DataError(
                f"Expected a folder with results, or a file that 'evaluate runs' wrote, got the "
                f"file {folder}; give its folder."
            )
        inside = results_in(folder)
        if not inside:
            raise DataError(
                f"Expected results in {folder} ({', '.join(FILES)}, {INSPECTIONS}), or a file that "
                "'evaluate runs' wrote, found none; make some with 'rewardsteer train', 'evaluate' "
                "or 'inspect'."
            )
        found += inside
    found = list({place.resolve(): place for place in found}.values())
    return [
        _load_over_runs(place, name, sources) if place.is_file() else _load(place, name, sources)
        for place, name in zip(found, names_of(found), strict=True)
    ]


def _load_over_runs(place: Path, name: str, sources: Sources) -> Run:
    run = Run(name, place, over_runs=formed(OverRuns, sources.json(place), place))
    # 'evaluate generation --seeds' writes settings here; other folders have them in their runs.
    beside = place.parent / "run.json"
    if place.name == SEEDS and beside.is_file():
        run.settings[beside.name] = sources.json(beside)
    return run


def _load(folder: Path, name: str, sources: Sources) -> Run:
    run = Run(name, folder)
    if (folder / "metrics.jsonl").is_file():
        place = folder / "metrics.jsonl"
        run.training = [
            formed(LogLine, row, f"{place}, line {number}") for number, row in sources.lines(place)
        ]
    if (folder / "metrics.json").is_file():
        place = folder / "metrics.json"
        for field_name, content in sort_metrics(sources.json(place), place).items():
            setattr(run, field_name, content)
    if (folder / "summary.json").is_file():
        place = folder / "summary.json"
        run.comparison = formed(Comparison, sources.json(place), place)
        _load_records(run, sources)
    if (folder / CURVE).is_file():
        place = folder / CURVE
        run.overoptimization = formed(Overoptimization, sources.json(place), place)
    for inspected in sorted(folder.glob(INSPECTIONS)):
        run.inspections += load_inspections(inspected, sources)
    for file in ("run.json", "settings.json", "result.json"):
        if (folder / file).is_file():
            run.settings[file] = sources.json(folder / file)
    _require_something(run)
    return run


def _require_something(run: Run) -> None:
    comparison = run.comparison and run.comparison.get("methods")
    curve = run.overoptimization and run.overoptimization.get("curve")
    known = (
        run.training, run.preference, run.correctness, run.benchmarks, run.agreement, comparison,
        curve, run.inspections,
    )
    if not any(known):
        raise DataError(
            f"Expected results in {run.folder}, but its files hold no log lines, figures, methods "
            "or inspections."
        )


def _load_records(run: Run, sources: Sources) -> None:
    """Records of a comparison's methods, if they are beside its summary."""
    assert run.comparison is not None
    for label in run.comparison.get("methods", {}):
        place = run.folder / file_name(label)
        if place.is_file():
            run.records[label], run.outcomes[label] = load_records(place, sources)


def load_records(
    place: Path, sources: Sources, limit: int = _RECORDS
) -> tuple[list[EvalRecord], list[Outcome]]:
    """The first records of a file, and the figures of all of them.

    Raises:
        DataError: a line is no record.
    """
    records: list[EvalRecord] = []
    outcomes = []
    for number, row in sources.lines(place):
        try:
            record = checked(EvalRecord, row)
            made = record.generation
            outcomes.append(Outcome(
                made.id, made.prompt[:_PROMPT], len(made.completion), made.cost.new_tokens,
                {"reward": record.metrics["reward"], **record.metrics},
            ))
        except (ValueError, KeyError) as error:
            raise DataError(f"{place}, line {number}: no evaluation record ({error}).") from error
        if len(records) < limit:
            records.append(record)
    return records, outcomes


def load_responses(places: Mapping[str, Path], ids: Sequence[str]) -> dict[str, list[str]]:
    """The response of each method to some prompts, by the prompt's id.

    Args:
        places: file of each method, already read by `load_records`.
        ids: ids of prompts that all files hold.
    """
    wanted = set(ids)
    found: dict[str, list[str]] = {key: [] for key in ids}
    for place in places.values():
        rows = (row["generation"] for _, row in read_jsonl(place))
        for key, text in {row["id"]: row["completion"] for row in rows}.items():
            if key in wanted:
                found[key].append(text)
    return found


def load_inspections(place: Path, sources: Sources) -> list[Inspection]:
    """The first inspections of a file.

    Raises:
        DataError: a line is no inspection.
    """
    found: list[Inspection] = []
    for number, row in sources.lines(place):
        if len(found) >= _INSPECTIONS:
            break
        try:
            found.append(checked(Inspection, row))
        except ValueError as error:
            raise DataError(f"{place}, line {number}: no inspection ({error}).") from error
    return found
