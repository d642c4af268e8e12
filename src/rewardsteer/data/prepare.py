"""From sources to a prepared folder: read, split, check, tokenize, write.

Nothing is truncated: a row that is too long is dropped and counted. The folder appears whole or not
at all.
"""

import hashlib
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rewardsteer.data.config import DataConfig, SourceConfig
from rewardsteer.data.render import render_prompt
from rewardsteer.data.sets import Row, full_row, partial_row, sft_row
from rewardsteer.data.sources import SOURCES, NoSplitError
from rewardsteer.data.store import MANIFEST, SPLITS, Manifest
from rewardsteer.data.template import resolve
from rewardsteer.data.tokenize import encode_comparison
from rewardsteer.errors import ConfigError, DataError
from rewardsteer.outputs import claim_folder, write_json
from rewardsteer.records import Comparison

Sets = dict[str, list[Row]]


def prepare(
    config: DataConfig, tokenizer: Any, out: Path, *, overwrite: bool = False
) -> Manifest:
    """Prepare the full, partial and SFT sets of both splits.

    Args:
        config: what to prepare.
        tokenizer: of the model that will be trained.
        out: folder to make, empty unless ``overwrite``.

    Raises:
        ConfigError: unknown source or option.
        DataError: unreadable data, or nothing left of a split.
        OutputError: the folder is not empty.
    """
    for source in config.sources:
        SOURCES.get(source.name)
    config = config.model_copy(update={"template": resolve(config.template, tokenizer)})
    claim_folder(out, overwrite=overwrite)
    dropped: Counter[str] = Counter()
    splits = _read(config, dropped)
    sets = {
        split: _tokenize(_with_progress(rows, split), config, tokenizer, dropped)
        for split, rows in splits.items()
    }
    for split in SPLITS:
        if not sets[split]["full"]:
            told = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
            raise DataError(
                f"Nothing is left for the {split} split after dropping rows ({told or 'none'}); "
                f"raise max_length (now {config.max_length}) or give more data."
            )
    manifest = Manifest(
        fingerprint=_fingerprint(sets),
        counts={split: {name: len(rows) for name, rows in sets[split].items()} for split in SPLITS},
        dropped=dict(dropped),
        config=config.model_dump(mode="json"),
        template=config.template.model_dump(mode="json"),
        tokenizer={"name": str(tokenizer.name_or_path), "size": len(tokenizer)},
        versions=_versions(),
    )
    _write(sets, manifest, out)
    return manifest


def _read(config: DataConfig, dropped: Counter[str]) -> dict[str, list[Comparison]]:
    """Both splits of all sources, cleaned, limited and blended."""
    rng = random.Random(config.seed)
    by_source: dict[str, list[list[Comparison]]] = {split: [] for split in SPLITS}
    for source in config.sources:
        splits = _split(source, config, rng)
        for split in SPLITS:
            by_source[split].append(_clean(splits[split], dropped))
    limits = {"train": config.train_rows, "test": config.test_rows}
    splits = {
        split: _blend(by_source[split], config, rng)[: limits[split]] for split in SPLITS
    }
    held_out = {_key(row) for row in splits["test"]}
    if config.drop_overlap:
        kept = [row for row in splits["train"] if _key(row) not in held_out]
        _count(dropped, "with a prompt of the test split", len(splits["train"]) - len(kept))
        splits["train"] = kept
    return splits


def _split(
    source: SourceConfig, config: DataConfig, rng: random.Random
) -> dict[str, list[Comparison]]:
    """A source's own splits, or one by prompt, so that no prompt is on both sides."""
    train = _load(source, "train")
    try:
        return {"train": train, "test": _load(source, "test")}
    except NoSplitError:
        prompts = sorted({_key(row) for row in train})
        if len(prompts) < 2:
            raise DataError(
                f"The source {source.name} holds {len(prompts)} prompt(s); expected at least two, "
                "to hold one out for testing."
            ) from None
        count = min(max(1, round(len(prompts) * config.test_fraction)), len(prompts) - 1)
        held_out = set(rng.sample(prompts, count))
        return {
            "train": [row for row in train if _key(row) not in held_out],
            "test": [row for row in train if _key(row) in held_out],
        }


def _load(source: SourceConfig, split: str) -> list[Comparison]:
    load = SOURCES.get(source.name)
    try:
        rows = list(load(split, path=source.path, **source.options))
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ConfigError(f"The source {source.name!r} does not take that: {error}.") from error
    if not rows:
        place = source.path or "its published place"
        raise DataError(f"The source {source.name} gave no comparisons from {place}.")
    return rows


def _clean(rows: list[Comparison], dropped: Counter[str]) -> list[Comparison]:
    """Without repeated comparisons and without pairs of one text."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for row in rows:
        content = (_key(row), row.chosen, row.rejected)
        if row.chosen == row.rejected:
            dropped["with chosen equal to rejected"] += 1
        elif content in seen:
            dropped["repeated"] += 1
        else:
            seen.add(content)
            kept.append(row)
    return kept


def _blend(
    sources: list[list[Comparison]], config: DataConfig, rng: random.Random
) -> list[Comparison]:
    """Shuffle; with several sources draw from them by weight until one runs dry."""
    pools = [rng.sample(rows, len(rows)) for rows in sources]
    if len(pools) == 1:
        return pools[0]
    weights = [source.weight for source in config.sources]
    mixed = []
    while all(pools):
        pool = rng.choices(pools, weights)[0]
        mixed.append(pool.pop())
    return mixed


def _with_progress(rows: list[Comparison], split: str) -> Iterable[Comparison]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        rows, f"tokenizing {split}", console=console, transient=True,
        disable=not console.is_terminal,
    )


def _tokenize(
    rows: Iterable[Comparison], config: DataConfig, tokenizer: Any, dropped: Counter[str]
) -> Sets:
    sets: Sets = {"full": [], "partial": [], "sft": []}
    template = config.template
    for row in rows:
        pair = encode_comparison(row, template, tokenizer)
        longest = max(len(pair.chosen_ids), len(pair.rejected_ids))
        if len(pair.prompt_ids) >= config.max_length:
            dropped["with a prompt longer than max_length"] += 1
        elif len(pair.prompt_ids) + longest > config.max_length:
            dropped["longer than max_length"] += 1
        elif not pair.chosen_ids or not pair.rejected_ids:
            dropped["with an empty response"] += 1
        else:
            prompt = render_prompt(row.prompt, template, tokenizer)
            sets["full"].append(full_row(row, pair, prompt))
            sets["partial"].append(
                partial_row(
                    pair, start=config.prefix_start, count=config.prefix_count, seed=config.seed
                )
            )
            sets["sft"].append(sft_row(row, pair, prompt))
    return sets


def _key(row: Comparison) -> str:
    """A prompt as something that can be compared and sorted."""
    if isinstance(row.prompt, str):
        return row.prompt
    return json.dumps([message.model_dump() for message in row.prompt])


def _count(dropped: Counter[str], reason: str, count: int) -> None:
    if count:
        dropped[reason] += count


def _fingerprint(sets: dict[str, Sets]) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for name, rows in sorted(sets[split].items()):
            digest.update(f"{split}/{name}".encode())
            for row in rows:
                digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("rewardsteer", "tokenizers")}


def _write(sets: dict[str, Sets], manifest: Manifest, out: Path) -> None:
    """Write everything beside ``out``, then move it there; the manifest comes last."""
    from datasets import Dataset

    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for split in SPLITS:
            for name, rows in sets[split].items():
                place = temporary / split / f"{name}.parquet"
                place.parent.mkdir(exist_ok=True)
                Dataset.from_list(rows).to_parquet(str(place))
        write_json(temporary / MANIFEST, manifest.model_dump(mode="json"))
        temporary.chmod(0o755)
        out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
