"""The device that work runs on, by name. Light to import: torch only inside functions."""

from typing import TYPE_CHECKING

from rewardsteer.errors import ConfigError

if TYPE_CHECKING:
    import torch

AUTO = "auto"


def choose_device(name: "str | torch.device" = AUTO) -> "torch.device":
    """The torch device of a name.

    Args:
        name: ``auto`` (the first CUDA device, else MPS, else the CPU), ``cpu``, ``cuda``,
            ``cuda:1``, ``mps``, or any other name that torch knows.

    Raises:
        ConfigError: torch does not know the name, or this machine has no such device.
    """
    import torch

    if isinstance(name, str) and name == AUTO:
        return torch.device(_best())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"The device {name!r} cannot be used here: torch knows no such name; expected "
            "auto, cpu, cuda, cuda:1 or mps."
        ) from error
    missing = _missing(device)
    if missing is not None:
        raise ConfigError(f"The device {str(name)!r} cannot be used here: {missing}.")
    return device


def has_accelerator(kind: str | None = None) -> bool:
    """Whether training runs on an accelerator (of one kind): the first one that torch sees."""
    import torch

    if not torch.accelerator.is_available():
        return False
    found = torch.accelerator.current_accelerator()
    return kind is None or (found is not None and found.type == kind)


def _best() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _missing(device: "torch.device") -> str | None:
    """Why a device cannot be used here; None where it can."""
    import torch

    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "torch finds no CUDA device on this machine; use auto or cpu"
        count = torch.cuda.device_count()
        if device.index is not None and device.index >= count:
            return (
                f"this machine has {count} CUDA device{'' if count == 1 else 's'}, counted from "
                "cuda:0"
            )
        return None
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            return "torch finds no Metal (MPS) device on this machine; use auto or cpu"
        if device.index:
            return "there is one Metal (MPS) device, called mps"
        return None
    if device.type == "meta":
        return "it holds no numbers; use auto or cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        return f"torch says {str(error).splitlines()[0]!r}; use auto or cpu"
    return None
