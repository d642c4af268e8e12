"""Checks that prepared data fits a model's tokenizer and response template."""

from pathlib import Path
from typing import Any

from rewardsteer.data.digests import template_hash, vocabulary_hash
from rewardsteer.data.store import Manifest
from rewardsteer.data.template import Template, resolve, stored_template
from rewardsteer.errors import DataError, MismatchError


def check_tokenizer(manifest: Manifest, tokenizer: Any, folder: Path) -> None:
    """Refuse data that was tokenized with another tokenizer.

    Raises:
        DataError: the tokens or their ids differ.
    """
    made = manifest.tokenizer
    size, vocabulary = made.get("size"), made.get("vocabulary")
    again = "prepare it again with this model's tokenizer."
    # One added padding token does not matter: data never contains it.
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
        tokenizer: the reward model's; for ``chat`` its chat template must be the same, too.

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
    """Refuse to train on data written with another template than the recipe's. Where the recipe has
    none, the template of the initial reward model counts.

    Args:
        manifest: of the data.
        template: the recipe's; None: it has none.
        tokenizer: of the model to train.
        folder: of the data.
        trained: template of the reward model that training starts from; None: no reward model.

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
