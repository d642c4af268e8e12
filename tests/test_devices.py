"""Which device a name means, on machines that this one is not."""

import pytest
import torch

from rewardsteer.devices import choose_device
from rewardsteer.errors import ConfigError


@pytest.fixture
def machine(monkeypatch):
    """Let torch see so many CUDA devices, and an MPS device or none."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)

    def pretend(*, cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    return pretend


@pytest.mark.parametrize(("has", "expected"), [
    ({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": 1}, "cuda"), ({"cuda": 2, "mps": True}, "cuda"),
])
def test_auto_is_cuda_then_mps_then_cpu(machine, has, expected):
    machine(**has)
    assert choose_device() == choose_device("auto") == torch.device(expected)


@pytest.mark.parametrize(("count", "rank", "expected"), [
    (4, "0", "cuda:0"), (4, "2", "cuda:2"), (1, "2", "cuda"), (4, "", "cuda"),
])
def test_auto_is_the_processs_own_gpu_under_a_launcher(
    machine, monkeypatch, count, rank, expected
):
    """One visible GPU for each process is the other way of launchers to share them out."""
    machine(cuda=count)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device() == torch.device(expected)
    assert choose_device("cuda") == torch.device("cuda")


def test_named_devices(machine):
    machine(cuda=2)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1"):
        assert choose_device(name) == torch.device(name)
    assert choose_device(torch.device("cuda:1")) == torch.device("cuda:1")
    machine(mps=True)
    assert choose_device("mps") == torch.device("mps")


@pytest.mark.parametrize(("has", "name", "said"), [
    ({}, "cuda", "no CUDA device"), ({}, "cuda:1", "no CUDA device"), ({}, "mps", "no Metal"),
    ({"cuda": 1}, "cuda:1", "has 1 CUDA device, counted"),
    ({"cuda": 2}, "cuda:2", "has 2 CUDA devices, counted"),
    ({"cuda": 1}, "mps", "no Metal"), ({"mps": True}, "mps:1", "one Metal"),
    ({}, "gpu", "expected auto, cpu"), ({}, "", "expected auto"), ({}, "meta", "no numbers"),
    ({}, "xpu", "xpu"),
])
def test_what_is_not_there_is_one_sentence(machine, has, name, said):
    machine(**has)
    with pytest.raises(ConfigError, match=said) as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
