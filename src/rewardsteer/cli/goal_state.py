"""``rewardsteer goal-state``: make, add up, import and export goal states."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rewardsteer.cli.devices import Device
from rewardsteer.cli.kind import KindOption, KindOptions, read_kind
from rewardsteer.cli.starting import (
    check_reward_model,
    check_writable,
    counted,
    loading,
    refuse_address,
)
from rewardsteer.cli.template import TemplateOption, read_template, show_template

if TYPE_CHECKING:
    from rewardsteer.goals.config import GoalConfig
    from rewardsteer.goals.goal_state import GoalState
    from rewardsteer.models.scorer import Scorer


def goal_state_command(
    reward_model: Annotated[str, typer.Option(help="Reward model: folder or hub name.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings as name=value: kind=clusters clusters=16 by_subset=true …"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder made by 'rewardsteer data prepare'.")
    ] = None,
    add: Annotated[
        str | None,
        typer.Option(help="Add named goals up instead: helpfulness=1,verbosity=-0.5"),
    ] = None,
    import_npy: Annotated[
        Path | None, typer.Option(help="Take a .npy of shape (1, hidden) instead.")
    ] = None,
    export_npy: Annotated[
        Path | None, typer.Option(help="Also write the goal as .npy of shape (1, hidden).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the goals; default: the reward model's.")
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace goals of the same name.")] = False,
    template: TemplateOption = None, kind: KindOption = None, kind_option: KindOptions = None,
) -> None:
    """Compute goal states: the mean last hidden state of preferred responses, or a variant."""
    import shutil

    from rewardsteer.configuration import load_config
    from rewardsteer.errors import OutputError
    from rewardsteer.goals.config import GoalConfig
    from rewardsteer.models.checkpoint import GOAL_STATES

    config = load_config(GoalConfig, {}, settings or [])
    written = read_template(template)
    folder = out or Path(reward_model)
    refuse_address(reward_model, "Goal states")
    check_reward_model(reward_model)
    of_kind = read_kind(kind, kind_option)
    _check_sources(config, data, add, import_npy, export_npy)
    check_writable(folder / GOAL_STATES, export_npy)
    loading(reward_model)

    from rewardsteer.goals.files import load_goals, save_goals, write_npy
    from rewardsteer.models.kinds import load_scorer
    from rewardsteer.models.text_scorer import require_tokens

    known = load_goals(folder) if (folder / GOAL_STATES).exists() else {}
    taken = sorted(_names(config, data) & known.keys())
    if taken and not overwrite:
        raise OutputError(
            f"{folder} holds goals named {', '.join(map(repr, taken))} already; choose another "
            "with name=…, or pass --overwrite."
        )
    scorer = require_tokens(
        load_scorer(reward_model, device=device, template=written, **of_kind), "goal states"
    )
    show_template(scorer.template, reward_model)
    work = folder / ".goal-state"
    if overwrite and not resume:
        shutil.rmtree(work, ignore_errors=True)
    made = _make(scorer, config, data, add, import_npy, known, work, resume=resume)
    folder.mkdir(parents=True, exist_ok=True)
    place = save_goals(folder, known | made)
    shutil.rmtree(work, ignore_errors=True)
    if export_npy is not None:
        for goal in made.values():
            write_npy(export_npy, goal)
    for name, goal in made.items():
        typer.echo(
            f"{name}: {goal.provenance.kind} of {counted(goal.provenance.count, 'response')} "
            f"→ {place}",
            err=True,
        )


def _check_sources(
    config: "GoalConfig", data: Path | None, add: str | None, import_npy: Path | None,
    export_npy: Path | None,
) -> None:
    """Refuse options that give no goal or an unwritable output, before anything is loaded."""
    from rewardsteer.data.store import load_manifest
    from rewardsteer.errors import ConfigError, DataError

    if sum(source is not None for source in (data, add, import_npy)) != 1:
        raise ConfigError("Give one of --data, --add and --import-npy: where the goal comes from.")
    single = config.kind in ("mean", "contrast") and not config.by_subset
    if export_npy is not None and not single:
        raise ConfigError(
            "The .npy form holds one vector; --export-npy needs kind=mean or kind=contrast, and no "
            "by_subset."
        )
    if data is not None:
        load_manifest(data)
    if import_npy is not None and not import_npy.is_file():
        raise DataError(f"The file {import_npy} cannot be read: there is none.")


def _names(config: "GoalConfig", data: Path | None) -> set[str]:
    """Names of the goals that will be computed."""
    from rewardsteer.data.store import load_set

    if data is None or not config.by_subset:
        return {config.name}
    return {subset or config.name for subset in load_set(data, config.split, "full")["subset"]}


def _make(
    scorer: "Scorer", config: "GoalConfig", data: Path | None, add: str | None,
    import_npy: Path | None, known: "dict[str, GoalState]", work: Path, *, resume: bool,
) -> "dict[str, GoalState]":
    from rewardsteer.goals.build import build_goals
    from rewardsteer.goals.files import check_goal, read_npy
    from rewardsteer.goals.goal_state import Provenance, weighted_sum
    from rewardsteer.progress import progress_bar

    if add is not None:
        for goal in known.values():
            check_goal(goal, scorer)
        return {config.name: weighted_sum(config.name, known, parse_weights(add))}
    if import_npy is not None:
        provenance = Provenance(kind="imported", model_fingerprint=scorer.fingerprint)
        goal = read_npy(import_npy, config.name, provenance)
        check_goal(goal, scorer)
        return {config.name: goal}
    assert data is not None, "checked above"
    with progress_bar("reading responses") as announce:
        return build_goals(scorer, data, config, work, resume=resume, announce=announce)


def parse_weights(text: str) -> dict[str, float]:
    """``"a=1,b=-0.5"`` → ``{"a": 1.0, "b": -0.5}``; raises `ConfigError` on anything else."""
    from rewardsteer.errors import ConfigError

    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if name.strip() in weights:
            raise ConfigError(f"The goal {name.strip()!r} stands twice in {text!r}.")
        try:
            weights[name.strip()] = float(value) if equals else 1.0
        except ValueError:
            raise ConfigError(
                f"Expected weights as name=number,name=number, got {part!r} in {text!r}."
            ) from None
    return weights
