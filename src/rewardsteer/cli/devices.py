"""Device and dtype options of the commands."""

from typing import TYPE_CHECKING, Annotated

import typer

from rewardsteer.errors import ConfigError

if TYPE_CHECKING:
    import torch

_NAMES = "auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps."
Device = Annotated[str, typer.Option(help=_NAMES)]
PolicyDevice = Annotated[str, typer.Option(help=f"Of the policy: {_NAMES}")]
RewardDevice = Annotated[
    str | None, typer.Option(help="Of the reward model; default: the policy's.")
]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16; default: as saved.")
]
RewardDtype = Annotated[
    str | None, typer.Option(help="Of the reward model; default: as saved.")
]

_DTYPES = ("float32", "bfloat16", "float16")


def check_dtypes(*names: str | None) -> None:
    """Refuse unknown names, before torch is imported.

    Raises:
        ConfigError: unknown name.
    """
    for name in names:
        if name is not None and name not in _DTYPES:
            raise ConfigError(f"Unknown dtype {name!r}; expected one of {', '.join(_DTYPES)}.")


def parse_dtype(name: str | None) -> "torch.dtype | None":
    """The torch dtype of a name; None stays None (as saved).

    Raises:
        ConfigError: unknown name.
    """
    check_dtypes(name)
    if name is None:
        return None
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype
