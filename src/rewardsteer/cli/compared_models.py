"""The models of ``rewardsteer evaluate generation``: judges, and the reward models of methods."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.cli.engines import EngineOptions
from rewardsteer.cli.starting import check_model, check_reward_model, loading, refuse_address
from rewardsteer.decoding.engines.choice import EngineChoice

if TYPE_CHECKING:
    from rewardsteer.evaluation.entries import Entry
    from rewardsteer.evaluation.method_settings import MethodConfig


def load_compared(
    judges: list[str], rows: "Iterable[MethodConfig]", choice: EngineChoice,
    running: EngineOptions, of_judge: dict[str, Any], *, budget: bool,
) -> dict[str, Any]:
    """The reward models of a comparison, by folder; each is loaded once.

    Args:
        judges: folders of the judge and of the second judge.
        rows: methods with their reward models; methods that compare responses may have pairwise
            models.
        choice: the engine. It loads reward models that guide inside it, so these are not loaded
            here unless they judge or choose.
        running: devices and precisions.
        of_judge: kind of the first judge, or None, and its options.
        budget: whether methods choose among responses by their reward models.
    """
    from rewardsteer.decoding.folder_scorer import FolderScorer
    from rewardsteer.decoding.methods import compares, is_guide
    from rewardsteer.devices import parse_dtype
    from rewardsteer.models.kinds import load_scorer

    used = [(folder, row.method) for row in rows for folder in row.scorers]
    inside = choice.kind.holds_guides and not budget
    pairs = {folder: compares(method) for folder, method in used}
    asked = {folder for folder, method in used if not (inside and is_guide(method))} | {*judges}
    place: dict[str, Any] = {
        "device": running.reward_device or running.device,
        "dtype": parse_dtype(running.reward_dtype),
    }
    found: dict[str, Any] = {}
    for one in dict.fromkeys([*pairs, *judges]):
        if one not in asked:
            found[one] = FolderScorer(Path(one))
        elif one == judges[0]:
            found[one] = load_scorer(one, **place, **of_judge)
        else:
            found[one] = load_scorer(one, **place, pairs=pairs.get(one, False))
    return found


def check_compared(
    settings: dict[str, "MethodConfig"], judges: list[str], choice: EngineChoice
) -> None:
    """Check that all models exist, and methods with their second models against the engine, before
    anything loads; says what will."""
    guides = [one for row in settings.values() for one in row.scorers]
    drafters = {one.draft_model for one in settings.values()} - {None}
    # Behind an address they are names on the server.
    check_model(choice.source, *([] if choice.by_address else drafters))
    for folder in (*judges, *guides):
        refuse_address(folder, "Comparisons")
    check_reward_model(*judges, *guides)
    loading(*judges, *guides, choice.source, *drafters)
    for config in settings.values():
        choice.check_method(config.method)
        choice.check_second_models(
            config, config.draft_model, config.gate_model, option="(draft_model)"
        )


def compared_entries(
    settings: dict[str, "MethodConfig"], sweeps: dict[str, str], scorers: dict[str, Any],
) -> list["Entry"]:
    """The comparison's entries with their models. Each method is built once, as a check."""
    from rewardsteer.decoding.ensemble import combined
    from rewardsteer.evaluation.entries import Entry
    from rewardsteer.goals.files import load_goal

    entries = []
    for label, config in settings.items():
        models = [scorers[folder] for folder in config.folders]
        goal = None if config.goal_place is None else load_goal(Path(config.goal_place))
        scorer = combined(models, config.weights, config)
        entry = Entry(
            label, config, scorer, goal, sweeps.get(label, ""),
            scout=config.gate_model and scorers[config.gate_model], drafter=config.draft_model,
        )
        entry.method()
        entries.append(entry)
    return entries
