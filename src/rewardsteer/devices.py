"""Devices and dtypes by name. Importing this module does not import torch."""

import os
from typing import TYPE_CHECKING

from rewardsteer.errors import ConfigError

if TYPE_CHECKING:
    import torch

AUTO = "auto"
_DTYPES = ("float32", "bfloat16", "float16")


def choose_device(name: "str | torch.device" = AUTO) -> "torch.device":
    """The torch device of a name.

    Args:
        name: ``auto`` (the first CUDA device, under a launcher this process's own; else MPS, else
            the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or the name of any other torch device.

    Raises:
        ConfigError: torch has no such name, or this machine has no such device.
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


def check_dtypes(*names: str | None) -> None:
    """Refuse unknown dtype names, before torch is imported.

    Raises:
        ConfigError: unknown name.
    """
    for name in names:
        if name is not None and name not in _DTYPES:
            raise ConfigError(f"Unknown dtype {name!r}; expected one of {', '.join(_DTYPES)}.")


def parse_dtype(name: "str | torch.dtype | None") -> "torch.dtype | None":
    """The torch dtype of a name; None (keep the saved dtype) for None and ``auto``.

    Raises:
        ConfigError: unknown name.
    """
    if name is None or name == AUTO:
        return None
    import torch

    if isinstance(name, torch.dtype) and name.is_floating_point:
        return name
    # A torch.dtype of whole numbers is no name either.
    check_dtypes(name)  # type: ignore[arg-type]
    dtype: torch.dtype = getattr(torch, name)  # type: ignore[arg-type]
    return dtype


def has_accelerator(kind: str | None = None) -> bool:
    """Whether training runs on an accelerator (of the given kind): the first one torch finds."""
    import torch

    if not torch.accelerator.is_available():
        return False
    found = torch.accelerator.current_accelerator()
    return kind is None or (found is not None and found.type == kind)


def multiplies_bfloat16() -> bool:
    """Whether the training device has instructions for bfloat16 matrix products. A CPU without them
    takes several times as long as with float32. Macs were not measured and count as without."""
    import torch

    if has_accelerator("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if has_accelerator():
        return not has_accelerator("mps")
    return computes_bfloat16_on_cpu()


def computes_bfloat16_on_cpu() -> bool:
    """Whether this CPU has instructions for bfloat16 matrix products."""
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _best() -> str:
    import torch

    if torch.cuda.is_available():
        return _own_cuda()
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _own_cuda() -> str:
    """The CUDA device of this process. Several processes of torchrun or ``accelerate launch`` would
    all load onto the first one, until something sets their current device."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    several = local.isdecimal() and int(local) < torch.cuda.device_count()
    return f"cuda:{int(local)}" if several else "cuda"


def _missing(device: "torch.device") -> str | None:
    """The reason why a device cannot be used on this machine; None if it can."""
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
