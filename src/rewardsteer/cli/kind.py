"""The ``--kind`` option: which kind of reward model it is, where a folder does not say so."""

from typing import Annotated

import typer

KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind", metavar="NAME",
        help="Kind of the reward model, or package.module:Class of one from elsewhere; left out, "
        "it is recognised by config.json and the names of the weights. Kinds: "
        "docs/reward_models.md.",
    ),
]


def check_kind(name: str | None) -> None:
    """Refuse an unknown kind, before anything is loaded.

    Raises:
        ConfigError: lists the known ones.
    """
    if name is not None:
        from rewardsteer.models.kinds import KINDS

        KINDS.check(name)
