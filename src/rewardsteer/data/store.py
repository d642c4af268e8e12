"""Prepared data on disk: Parquet sets beside a manifest.

    DATA/manifest.json
    DATA/{train,test}/full.parquet      id, prompt, chosen, rejected, margin, source, subset and
                                        prompt_ids, chosen_ids, rejected_ids (end-of-text included)
    DATA/{train,test}/partial.parquet   id, prompt_ids, chosen_ids, rejected_ids, margin,
                                        chosen_lengths, pair_lengths
    DATA/{train,test}/sft.parquet       id, prompt, label, prompt_ids, label_ids

A partial row lists the lengths i of the response prefixes y₁..i to look at, in tokens:
``chosen_lengths`` for the chosen response alone (maximum constraint), ``pair_lengths`` for prefixes
that both responses have (PARGS). One row a response, not one a prefix: a causal model reads every
prefix in one pass.
"""

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rewardsteer.configuration import Config
from rewardsteer.data.template import Template, stored_template
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.outputs import read_json

MANIFEST = "manifest.json"
SPLITS = ("train", "test")
SETS = ("full", "partial", "sft")


class Manifest(Config):
    """What lies in a prepared folder.

    Attributes:
        fingerprint: stable hash over all rows.
        counts: ``{split: {set: rows}}``.
        dropped: ``{reason: rows}`` over both splits.
        config: the resolved settings that made it.
        template: the response template, as plain values.
        tokenizer: name and size of the tokenizer that made the ids.
        versions: versions of the libraries that wrote it.
    """

    fingerprint: str
    counts: dict[str, dict[str, int]]
    dropped: dict[str, int] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    template: dict[str, Any] = Field(default_factory=dict)
    tokenizer: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if not (folder / MANIFEST).exists():
        raise DataError(
            f"Expected prepared data in {folder}, it has no {MANIFEST}; make it with "
            "'rewardsteer data prepare'."
        )
    try:
        return Manifest.model_validate(read_json(folder / MANIFEST))
    except ValidationError as error:
        raise DataError(f"The manifest {folder / MANIFEST} is damaged: {error}") from error


def check_tokenizer(manifest: Manifest, tokenizer: Any, folder: Path) -> None:
    """Refuse data whose token ids another tokenizer made.

    Raises:
        DataError: it has another number of tokens.
    """
    size = manifest.tokenizer.get("size")
    # One added padding token is no difference: data never contains it.
    if size is not None and abs(size - len(tokenizer)) > 1:
        raise DataError(
            f"The data in {folder} was prepared with the tokenizer "
            f"{manifest.tokenizer.get('name')} of {size} tokens, the model's has "
            f"{len(tokenizer)}; prepare it again with this model's tokenizer."
        )


def check_template(manifest: Manifest, template: Template, folder: Path, reader: str) -> None:
    """Refuse data written with another response template than the reward model's.

    Raises:
        MismatchError: the templates differ.
    """
    if stored_template(manifest.template) != template:
        raise MismatchError(
            f"The data in {folder} was written with another response template than the reward "
            f"model {reader} uses; prepare it again with the model's template (rewardsteer.json, "
            "or --template auto with the model's tokenizer where it has none), or pass the data's "
            "as --template."
        )


def load_set(folder: Path, split: str, name: str) -> Any:
    """One set as a `datasets.Dataset`, memory-mapped.

    Args:
        folder: a prepared folder.
        split: ``train`` or ``test``.
        name: ``full``, ``partial`` or ``sft``.

    Raises:
        DataError: no such set, or the file is damaged.
    """
    from datasets import Dataset

    path = folder / split / f"{name}.parquet"
    if not path.exists():
        raise DataError(f"Expected the {name} set of the {split} split at {path}, it is not there.")
    try:
        return Dataset.from_parquet(str(path))
    except Exception as error:  # pyarrow raises several unrelated kinds
        raise DataError(f"The data file {path} cannot be read: {error}") from error
