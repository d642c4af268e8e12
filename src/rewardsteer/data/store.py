"""Prepared data on disk: Parquet sets and a manifest.

    DATA/manifest.json
    DATA/{train,test}/full.parquet      id, prompt, chosen, rejected, margin, source, subset and
                                        prompt_ids, chosen_ids, rejected_ids (end-of-text included);
                                        extras, where a source gives further numbers;
                                        chosen_by, rejected_by, where it names the models
    DATA/{train,test}/partial.parquet   id, prompt_ids, chosen_ids, rejected_ids, margin,
                                        chosen_lengths, pair_lengths, extras
    DATA/{train,test}/sft.parquet       id, prompt, label, prompt_ids, label_ids

or, for sources that give responses with numbers instead of pairs,

    DATA/{train,test}/responses.parquet id, prompt, responses, source, subset, prompt_ids,
                                        response_ids (a list per response), numbers (a list by
                                        name)

Large sets are split into several files, ``full-00000-of-00012.parquet`` and so on.

A partial row lists the lengths i of the response prefixes y₁..i that training uses, in tokens:
``chosen_lengths`` for the chosen response alone (maximum constraint), ``pair_lengths`` for prefixes
of both responses (PARGS). One forward pass of a causal model covers every prefix, so prefixes
need no rows of their own.
"""

import os
from pathlib import Path
from typing import Any

from pydantic import Field

from rewardsteer.configuration import Config
from rewardsteer.errors import DataError, OutputError
from rewardsteer.faults import checked
from rewardsteer.outputs import read_json, reason

MANIFEST = "manifest.json"
SPLITS = ("train", "test")
SETS = ("full", "partial", "sft")
RESPONSE_SETS = ("responses",)


class Manifest(Config):
    """Contents of a prepared folder.

    Attributes:
        fingerprint: stable hash over all rows.
        counts: ``{split: {set: rows}}``.
        read: rows that the sources held, over both splits.
        repeated: repetitions of rows by a blend. ``read + repeated`` equals the rows of a set plus
            the dropped rows.
        dropped: ``{reason: rows}`` over both splits.
        notes: notes printed during preparation.
        config: the resolved settings of the preparation.
        template: the response template, as plain values.
        template_hash: of the template and, for ``chat``, the tokenizer's chat template; "" in
            folders of earlier versions.
        tokenizer: name and size of the tokenizer that made the ids, and a hash of its vocabulary.
        versions: versions of the libraries that wrote the folder.
    """

    fingerprint: str
    counts: dict[str, dict[str, int]]
    read: int = 0
    repeated: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    config: dict[str, Any] = Field(default_factory=dict)
    template: dict[str, Any] = Field(default_factory=dict)
    template_hash: str = ""
    tokenizer: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets: ``SETS`` for pairs, ``RESPONSE_SETS`` for responses with numbers."""
        return tuple(self.counts["train"])


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        DataError: there is no manifest, or it is damaged.
    """
    if not (folder / MANIFEST).exists():
        saved = any((folder / f"{name}.json").exists() for name in ("dataset_dict", "dataset_info"))
        raise DataError(
            f"Expected prepared data in {folder}, it has no {MANIFEST}; make it with "
            + (
                f"'rewardsteer data prepare pairs --path {folder}', which reads what "
                "datasets.save_to_disk wrote." if saved else "'rewardsteer data prepare'."
            )
        )
    try:
        return checked(Manifest, read_json(folder / MANIFEST))
    except ValueError as error:
        raise DataError(f"The manifest {folder / MANIFEST} is damaged: {error}") from error


def shard_name(name: str, index: int, count: int) -> str:
    """The file name of one shard of a set."""
    return f"{name}.parquet" if count == 1 else f"{name}-{index:05d}-of-{count:05d}.parquet"


def load_set(folder: Path, split: str, name: str) -> Any:
    """One set as a `datasets.Dataset`, memory-mapped.

    Args:
        folder: a prepared folder.
        split: ``train`` or ``test``.
        name: ``full``, ``partial``, ``sft`` or ``responses``.

    Raises:
        DataError: no such set, or the file is damaged.
        OutputError: the cache of `datasets` cannot be written, which holds the rows that are
            memory-mapped.
    """
    import datasets

    place = folder / split
    paths = [place / f"{name}.parquet"]
    if not paths[0].exists():
        paths = sorted(place.glob(f"{name}-*-of-*.parquet"))
        if not paths:
            _refuse_other_rows(place, name)
        count = int(paths[0].stem.rpartition("-")[2]) if paths else 1
        if len(paths) != count:
            raise DataError(
                f"Expected the {name} set of the {split} split at {place / name}.parquet or in "
                f"numbered files, it is not there{' as a whole' if paths else ''}."
            )
    try:
        return datasets.Dataset.from_parquet([str(path) for path in paths])
    except Exception as error:  # pyarrow raises several unrelated kinds
        # `datasets` reports a failure to write its copy as one of reading.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, OSError) and cause.errno is not None and os.access(paths[0], os.R_OK):
            raise OutputError(
                f"The library datasets cannot write its copy of {paths[0]} to its cache "
                f"{datasets.config.HF_DATASETS_CACHE}: {reason(cause)}; name a folder with room in "
                "the environment variable HF_DATASETS_CACHE."
            ) from error
        raise DataError(f"The data file {paths[0]} cannot be read: {error}") from error


def _refuse_other_rows(place: Path, name: str) -> None:
    """Raise `DataError` if pairs are requested from a folder of responses, or the reverse."""
    other = SETS[:1] if name in RESPONSE_SETS else RESPONSE_SETS
    if not any(place.glob(f"{other[0]}*.parquet")):
        return
    given, wanted = (
        ("preference pairs", "responses with numbers (ratings, ranks, labels)")
        if name in RESPONSE_SETS else
        ("responses with numbers (ratings, ranks, labels)", "preference pairs")
    )
    raise DataError(
        f"The data in {place.parent} holds {given}, and {wanted} are needed; prepare a source of "
        "those ('rewardsteer data list')."
    )
