"""`train`: train a reward model on your own rows, in one call."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardsteer.api.inputs import as_json_lines
from rewardsteer.api.reward_model import RewardModel
from rewardsteer.configuration import load_config
from rewardsteer.data.sources.files import kind_of
from rewardsteer.errors import ConfigError, DataError, OutputError
from rewardsteer.outputs import check_folder, write_text
from rewardsteer.quiet import quiet_calls
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.recipes import own_recipe, own_source, read_recipe

# Suffix of the file for the rows of an in-memory dataset, after the output folder's name.
_ROWS = "rows.jsonl"


@quiet_calls
def train(
    recipe: str | Path, base_model: str | Path | None = None, dataset: Any = None, *,
    output_dir: str | Path, resume: bool = False, overwrite: bool = False,
    callbacks: Sequence[Any] = (), **settings: Any,
) -> RewardModel:
    """Train a reward model.

        train("farma", "Qwen/Qwen3-0.6B", dataset, output_dir="out/farma", rounds=3)

    Args:
        recipe: for rows of your own ``bt``, ``pargs``, ``farma``, ``genarm`` or ``goal`` (pairs),
            ``regression`` or ``attributes`` (ratings), ``listwise`` (several responses in order),
            ``labels`` (good or bad) or ``process`` (labelled steps); a shipped recipe
            (``rewardsteer recipes``) or a YAML file.
        base_model: folder or hub name of a language model, or of a reward model to train further;
            None: the recipe's.
        dataset: a `datasets.Dataset`, a list of mappings, or a file or folder of them, with TRL's
            columns: ``prompt``, ``chosen``, ``rejected``; or ``prompt``, ``completion`` and
            ``rating`` or ``label``; ``prompt``, ``responses`` and ``scores``; ``prompt``,
            ``completions``, ``labels``. None: the recipe's.
        output_dir: folder of the run; the model is written to ``OUTPUT_DIR/model``.
        resume: continue an interrupted run.
        overwrite: replace what is in ``output_dir``.
        callbacks: `transformers.TrainerCallback` objects or classes.
        settings: of `TrainConfig`, sections as mappings (``optimiser={"learning_rate": 1e-5}``) or
            by dotted names (``**{"optimiser.learning_rate": 1e-5}``).

    Raises:
        ConfigError: unknown recipe or setting.
        DataError: no rows, or rows that do not suit the recipe's objective.
        OutputError: ``output_dir`` is not empty.
    """
    from rewardsteer.training.run import train as run

    out = Path(output_dir)
    if not isinstance(recipe, str | Path):
        raise ConfigError(
            f"recipe is the name of a recipe or a YAML file, got {kind_of(recipe)}; give settings "
            "by name, for example rounds=3."
        )
    values: dict[str, Any] = read_recipe(own_recipe(str(recipe)), "train")
    if base_model is not None:
        values["base_model"] = str(base_model)
    rows = None
    if dataset is not None:
        place, rows = _place_of(dataset, out)
        source = own_source(values, str(place))
        values["data"] = dict(values.get("data") or {}) | {"sources": [source]}
        values["data"].pop("source", None)
        values.pop("prepared", None)
    dotted = [f"{key}={json.dumps(one)}" for key, one in settings.items() if "." in key]
    values = _merged(values, {key: one for key, one in settings.items() if "." not in key})
    config = load_config(TrainConfig, values, dotted)
    if rows is not None:
        _write_rows(rows, place, out, resume=resume, overwrite=overwrite)
    return RewardModel.from_pretrained(
        run(config, out, resume=resume, overwrite=overwrite, callbacks=callbacks)
    )


def _merged(values: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with changes applied: sections are merged, other values replaced."""
    merged = dict(values)
    for key, one in changed.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(one, Mapping)
        merged[key] = _merged(before, one) if both else one  # type: ignore[arg-type]
    return merged


def _place_of(dataset: Any, out: Path) -> tuple[Path, str | None]:
    """Path of the rows, and None. For rows in memory: a path beside the output folder, and their
    text as JSON lines."""
    if isinstance(dataset, str | Path):
        place = Path(dataset)
        if not place.exists():
            raise DataError(f"Expected rows to train on at {place}, there is no such file.")
        return place.resolve(), None
    return (out.parent / f"{out.name}.{_ROWS}").resolve(), as_json_lines(dataset)


def _write_rows(text: str, place: Path, out: Path, *, resume: bool, overwrite: bool) -> None:
    """Write the rows of a new run; a resumed run must have the same rows.

    Raises:
        OutputError: the rows differ, or the output folder is not empty.
    """
    check_folder(out, resume=resume, overwrite=overwrite)
    if resume and place.exists() and place.read_text(encoding="utf-8") != text:
        raise OutputError(
            f"The run in {out} was begun with other rows; pass the same dataset, or overwrite=True."
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, text)
