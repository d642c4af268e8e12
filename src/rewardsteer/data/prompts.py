"""Prompts for generation: from prepared data, from a source, or as used in a publication."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.data.sources import SOURCES, NoSplitError
from rewardsteer.data.sources.files import require
from rewardsteer.data.sources.reading import read_rows
from rewardsteer.data.store import load_manifest, load_set
from rewardsteer.errors import ConfigError, DataError, OutputError
from rewardsteer.outputs import write_text

Row = dict[str, Any]
# Hub name, rows and seed of the test prompts of arXiv 2502.04517.
PUBLISHED = {"tldr": ("CarperAI/openai_summarize_tldr", 100, 44)}


def prepared_prompts(folder: Path, split: str) -> list[Row]:
    """The distinct prompts of a prepared split, with the token ids used in training."""
    rows = load_set(folder, split, load_manifest(folder).sets[0])
    rows = rows.select_columns(["id", "prompt", "prompt_ids"])
    return different(dict(row) for row in rows)


def source_prompts(name: str, path: str | None, split: str) -> list[Row]:
    """The distinct prompts of a source's split, as text or messages.

    Raises:
        DataError: it has no such split, or cannot be read.
    """
    load = SOURCES.get(name)
    try:
        return different(
            {"id": row.id, **row.model_dump(mode="json", include={"prompt"})}
            for row in load(split, path=path)
        )
    except NoSplitError as error:
        raise DataError(
            f"The source {name} has no {split} split; give split='train' (--split train), or "
            "prepare it and give the folder, which then has one."
        ) from error


def published_prompts(name: str, path: str | None) -> list[Row]:
    """The prompts that a publication evaluated on.

    Args:
        name: the source; only ``tldr`` has such prompts.
        path: a local copy of the published data set; None reads the hub.

    Raises:
        ConfigError: the source has no such prompts.
    """
    if name not in PUBLISHED:
        raise ConfigError(
            f"No published prompts are known of {name!r}; known: {', '.join(PUBLISHED)}."
        )
    hub, count, seed = PUBLISHED[name]
    rows = []
    split = "test" if path is None or Path(path).is_dir() else "train"
    for index, (place, row) in enumerate(read_rows(split, path, hub)):
        require(row, ["prompt"], place)
        text = str(row["prompt"]).strip().removesuffix("TL;DR:").rstrip()
        rows.append({"id": f"{name}-published-{index}", "prompt": text})
    return draw(rows, count, seed)


def draw(rows: Sequence[Row], count: int | None, seed: int) -> list[Row]:
    """The first ``count`` rows in the order of a ``datasets`` shuffle with the seed. Without a
    count, all rows in their own order."""
    if count is None:
        return list(rows)
    from datasets import Dataset

    order = Dataset.from_dict({"row": list(range(len(rows)))}).shuffle(seed=seed)["row"]
    return [rows[index] for index in list(order)[:count]]


def write_prompts(rows: Sequence[Row], path: Path, *, overwrite: bool) -> None:
    """Write the file that ``rewardsteer generate --prompts`` reads.

    Raises:
        DataError: there are no prompts.
        OutputError: the file exists, or cannot be written.
    """
    if not rows:
        raise DataError("There are no prompts to write.")
    if path.exists() and not overwrite:
        raise OutputError(
            f"The file {path} is there already; choose another or pass overwrite=True "
            "(--overwrite)."
        )
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def different(rows: Iterator[Row]) -> list[Row]:
    """The first row of each distinct prompt."""
    seen: set[str] = set()
    found = []
    for row in rows:
        key = json.dumps(row["prompt"], sort_keys=True)
        if key not in seen:
            seen.add(key)
            found.append(row)
    return found
