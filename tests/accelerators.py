"""Stand-ins for accelerators that the machine of the tests does not have."""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

MPS = torch.device("mps")
_TO, _TENSOR = Tensor.to, torch.tensor


class OnMps(Tensor):
    """A tensor that takes itself for one on a Mac's GPU, which has no float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        options = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return MPS
        if func is Tensor.double or torch.float64 in (*args[1:], *options.values()):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        return super().__torch_function__(func, types, args, options)


@contextmanager
def mps():
    """Within it, tensors can be made on a Mac's GPU and moved to it."""
    def to(self, *args, **options):
        return self.as_subclass(OnMps) if MPS in args else _TO(self, *args, **options)

    def tensor(*args, device=None, **options):
        made = _TENSOR(*args, device=None if device == MPS else device, **options)
        return made.as_subclass(OnMps) if device == MPS else made

    with patch.object(Tensor, "to", to), patch.object(torch, "tensor", tensor):
        yield


class NoCopies(TorchFunctionMode):
    """Refuses what makes a GPU wait for the host: values that are copied to the meta device, which
    stands for a GPU, and values that are read."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        device = torch.device((kwargs or {}).get("device") or "cpu")
        assert func not in (torch.tensor, torch.as_tensor) or device.type == "cpu", func
        assert func not in (Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.__bool__), func
        return func(*args, **kwargs or {})


class CountMoves(TorchFunctionMode):
    """Counts the tensors that are moved to another device."""

    def __init__(self):
        super().__init__()
        self.moves = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **kwargs or {})
        self.moves += func is Tensor.to and found.device != args[0].device
        return found
