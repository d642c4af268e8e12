"""Prepared data on disk: Parquet sets beside a manifest.

    DATA/manifest.json
    DATA/{train,test}/full.parquet      id, prompt, chosen, rejected, margin, source, subset and
                                        prompt_ids, chosen_ids, rejected_ids (end-of-text included);
                                        extras, where a source gives further numbers;
                                        chosen_by, rejected_by, where it names writers
    DATA/{train,test}/partial.parquet   id, prompt_ids, chosen_ids, rejected_ids, margin,
                                        chosen_lengths, pair_lengths, extras
    DATA/{train,test}/sft.parquet       id, prompt, label, prompt_ids, label_ids

or, of sources that give responses with numbers in place of pairs,

    DATA/{train,test}/responses.parquet id, prompt, responses, source, subset, prompt_ids,
                                        response_ids (a list per response), numbers (a list by
                                        name)

Large sets lie in several files, ``full-00000-of-00012.parquet`` and so on.

A partial row lists the lengths i of the response prefixes y₁..i to look at, in tokens:
``chosen_lengths`` for the chosen response alone (maximum constraint), ``pair_lengths`` for prefixes
that both responses have (PARGS). One row per response, not per prefix: one forward pass of a causal
model covers every prefix.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from rewardsteer.configuration import Config
from rewardsteer.data.template import Template, resolve, stored_template
from rewardsteer.data.vocabulary import template_hash, vocabulary_hash
from rewardsteer.errors import DataError, MismatchError
from rewardsteer.faults import checked
from rewardsteer.outputs import read_json

MANIFEST = "manifest.json"
SPLITS = ("train", "test")
SETS = ("full", "partial", "sft")
RESPONSE_SETS = ("responses",)


class Manifest(Config):
    """What lies in a prepared folder.

    Attributes:
        fingerprint: stable hash over all rows.
        counts: ``{split: {set: rows}}``.
        read: rows that the sources held, over both splits.
        repeated: rows that a blend wrote once more, ``read + repeated`` being the rows of a set and
            all that were dropped.
        dropped: ``{reason: rows}`` over both splits.
        notes: remarks printed when it was made.
        config: the resolved settings that made it.
        template: the response template, as plain values.
        template_hash: of the template and, under ``chat``, the tokenizer's chat template; "" in
            folders of earlier versions.
        tokenizer: name and size of the tokenizer that made the ids, and a hash of its vocabulary.
        versions: versions of the libraries that wrote it.
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
        """Names of the sets: ``SETS`` of pairs, ``RESPONSE_SETS`` of responses with numbers."""
        return tuple(self.counts["train"])


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        DataError: there is none, or it is damaged.
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


def check_tokenizer(manifest: Manifest, tokenizer: Any, folder: Path) -> None:
    """Refuse data whose token ids another tokenizer made.

    Raises:
        DataError: its tokens or their ids differ.
    """
    made = manifest.tokenizer
    size, vocabulary = made.get("size"), made.get("vocabulary")
    again = "prepare it again with this model's tokenizer."
    # One added padding token is no difference: data never contains it.
    if size is not None and abs(size - len(tokenizer)) > 1:
        raise DataError(
            f"The data in {folder} was prepared with the tokenizer {made.get('name')} of {size} "
            f"tokens, the model's has {len(tokenizer)}; {again}"
        )
    if vocabulary is not None and vocabulary != vocabulary_hash(tokenizer):
        raise DataError(
            f"The data in {folder} was prepared with the tokenizer {made.get('name')}, whose "
            f"tokens or their ids are others than those of the model's tokenizer; {again}"
        )


def check_template(
    manifest: Manifest, template: Template, folder: Path, reader: str, tokenizer: Any = None
) -> None:
    """Refuse data written with another response template than the reward model's.

    Args:
        manifest: of the data.
        template: the reward model's.
        folder: of the data.
        reader: the reward model's name.
        tokenizer: the reward model's; under ``chat`` its chat template must be the same, too.

    Raises:
        MismatchError: the templates differ.
    """
    if stored_template(manifest.template) != template:
        raise MismatchError(
            f"The data in {folder} was written with another response template than the reward "
            f"model {reader} uses; prepare it again with the model's template (rewardsteer.json, "
            "or template.kind=auto with the model's tokenizer where it has none), or pass the "
            "data's as template= (--template)."
        )
    if tokenizer is not None and not _same_chat_template(manifest, template, tokenizer):
        raise MismatchError(
            f"The data in {folder} was written with another chat template than that of the "
            f"tokenizer of {reader}; prepare it again with that tokenizer (--tokenizer {reader})."
        )


def check_recipe(
    manifest: Manifest, template: Template | None, tokenizer: Any, folder: Path,
    trained: Template | None = None,
) -> None:
    """Refuse to train on data written with another template than the recipe's or, where that names
    none, than the one that the model was trained with before.

    Args:
        manifest: of the data.
        template: the recipe's; None: it has none.
        tokenizer: of the model to train.
        folder: of the data.
        trained: of the reward model that training starts from; None: it starts from another model.

    Raises:
        MismatchError: the templates differ.
    """
    ours = stored_template(manifest.template)
    follows = trained is not None and template in (None, Template())
    wanted = trained if follows else template
    if wanted is not None and resolve(wanted, tokenizer) != resolve(ours, tokenizer):
        asked, found = (one.model_dump(mode="json") for one in (resolve(wanted, tokenizer), ours))
        differ = "; ".join(
            f"{name}: {found[name]!r} in the data, {asked[name]!r} here"
            for name in asked if asked[name] != found[name]
        )
        if follows:
            raise MismatchError(
                f"The data in {folder} was written with another template than the reward model "
                f"that training starts from was trained with ({differ}); prepare it again "
                "with its tokenizer (--tokenizer), or name the data's template in data.template."
            )
        raise MismatchError(
            f"The data in {folder} was written with another template than the recipe's "
            f"({differ}); prepare it again with this model's tokenizer, or set data=null to train "
            "on it as it is written."
        )
    if not _same_chat_template(manifest, ours, tokenizer):
        raise MismatchError(
            f"The data in {folder} was written with another chat template than that of the "
            "model's tokenizer; prepare it again with this tokenizer."
        )


def _same_chat_template(manifest: Manifest, template: Template, tokenizer: Any) -> bool:
    return manifest.template_hash in ("", template_hash(template, tokenizer))


def shard_name(name: str, index: int, count: int) -> str:
    """The name of one of the files of a set."""
    return f"{name}.parquet" if count == 1 else f"{name}-{index:05d}-of-{count:05d}.parquet"


def load_set(folder: Path, split: str, name: str) -> Any:
    """One set as a `datasets.Dataset`, memory-mapped.

    Args:
        folder: a prepared folder.
        split: ``train`` or ``test``.
        name: ``full``, ``partial`` or ``sft``; ``responses``.

    Raises:
        DataError: no such set, or the file is damaged.
    """
    from datasets import Dataset

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
        return Dataset.from_parquet([str(path) for path in paths])
    except Exception as error:  # pyarrow raises several unrelated kinds
        raise DataError(f"The data file {paths[0]} cannot be read: {error}") from error


def _refuse_other_rows(place: Path, name: str) -> None:
    """Raise `DataError` where the rows are of the other kind."""
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
