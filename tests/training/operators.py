"""Which operators a computation reaches, and which devices torch has kernels of them for.

A build of torch for CPUs holds no other kernels; the table that all builds are made from, which
every build carries, says where there are any.
"""

import functools
from pathlib import Path

import torchgen
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from rewardsteer.kernels import vocabulary_max, vocabulary_soft

_OWN = {
    "rewardsteer::vocabulary_argmax": vocabulary_max._argmax,
    "rewardsteer::vocabulary_logsumexp": vocabulary_soft._soft,
    "rewardsteer::vocabulary_logsumexp_backward": vocabulary_soft._soft_backward,
}
_EVERYWHERE = {
    "CompositeImplicitAutograd", "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
}


class Recorder(TorchDispatchMode):
    """Within it, names of ATen operators are added to ``seen``."""

    def __init__(self):
        super().__init__()
        self.seen = set()
        self.dtypes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name in _OWN:
            # Its body is what runs on a device.
            with self:
                return _OWN[name]._init_fn(*args, **(kwargs or {}))
        if name.startswith("aten::"):
            overload = func._schema.overload_name
            self.seen.add(name.removeprefix("aten::") + (f".{overload}" if overload else ""))
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if hasattr(one, "dtype"):
                self.dtypes.add((one.device.type, one.dtype))
        return found


@functools.cache
def _table():
    file = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    found = {}
    for entry in yaml.safe_load(file.read_text()):
        name = entry["func"].partition("(")[0]
        keys = {
            key.strip() for several in entry.get("dispatch", {}) for key in several.split(",")
        }
        # Element-wise operators that are generated for these two.
        keys |= {"CPU", "CUDA"} if "ufunc_inner_loop" in entry else set()
        found[name] = (keys, entry.get("structured_delegate"))
    return found


def without_kernel(operators, device):
    """Those of the operators that torch has no kernel of for a device (``CUDA``, ``MPS``)."""
    missing = set()
    for name in operators:
        keys, delegate = _table().get(name, (set(), None))
        if delegate is not None:
            keys = keys | _table()[delegate][0]
        # Without a table of its own an operator is made of others.
        if name not in _table() or (keys and not keys & {device, *_EVERYWHERE}):
            missing.add(name)
    return missing
