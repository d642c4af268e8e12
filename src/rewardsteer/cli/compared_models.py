"""The models of ``rewardsteer evaluate generation``: judges, and the reward models of methods."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardsteer.evaluation.entries import Entry
    from rewardsteer.evaluation.method_settings import MethodConfig


def load_compared(
    judges: list[str], rows: "Iterable[MethodConfig]", device: str, of_judge: dict[str, Any]
) -> dict[str, Any]:
    """The reward models of a comparison, by folder; each is loaded once.

    Args:
        judges: folders of the judge and of the second judge.
        rows: methods with their reward models; methods that compare responses may have pairwise
            models.
        device: of all models.
        of_judge: kind of the first judge, or None, and its options.
    """
    from rewardsteer.decoding.methods import compares
    from rewardsteer.models.kinds import load_scorer

    pairs = {one: compares(row.method) for row in rows for one in row.scorers}
    others = [one for one in dict.fromkeys([*pairs, *judges[1:]]) if one != judges[0]]
    return {
        one: load_scorer(one, device=device, pairs=pairs.get(one, False)) for one in others
    } | {judges[0]: load_scorer(judges[0], device=device, **of_judge)}


def check_second_models(settings: dict[str, "MethodConfig"], model: str) -> None:
    """Check draft models and gates' reward models before anything loads."""
    from rewardsteer.decoding.second_models import check_draft_model, check_gate_model
    from rewardsteer.models.checkpoint import load_tokenizer

    given = any(one.draft_model or one.gate_model for one in settings.values())
    tokenizer = load_tokenizer(model) if given else None
    for config in settings.values():
        check_draft_model(
            config, config.draft_model, "transformers", tokenizer, option="(draft_model)"
        )
        check_gate_model(config, config.gate_model, "transformers", tokenizer)


def compared_entries(
    settings: dict[str, "MethodConfig"], sweeps: dict[str, str], scorers: dict[str, Any],
    device: str,
) -> list["Entry"]:
    """The comparison's entries with their models. Each method is built once, as a check. A draft
    model of several entries is loaded once."""
    from rewardsteer.decoding.ensemble import combined
    from rewardsteer.decoding.policy import load_policy
    from rewardsteer.evaluation.entries import Entry
    from rewardsteer.goals.files import load_goal

    entries = []
    for label, config in settings.items():
        models = [scorers[folder] for folder in config.folders]
        goal = None if config.goal_place is None else load_goal(Path(config.goal_place))
        scorer = combined(models, config.weights, config)
        entry = Entry(
            label, config, scorer, goal, sweeps.get(label, ""),
            scout=config.gate_model and scorers[config.gate_model],
        )
        entry.method()
        entries.append(entry)
    names = dict.fromkeys(one.draft_model for one in settings.values() if one.draft_model)
    drafters = {name: load_policy(name, device=device) for name in names}
    return [
        replace(entry, drafter=drafters.get(config.draft_model or ""))
        for entry, config in zip(entries, settings.values(), strict=True)
    ]
