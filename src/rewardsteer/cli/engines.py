"""The choice of the engine that runs a model."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

Engine = Annotated[str, typer.Option(help="Runs the model: transformers or vllm.")]
VllmOptions = Annotated[
    list[str] | None,
    typer.Option("--vllm-option", help="Engine argument of vLLM, as name=value; repeatable."),
]

RayAddress = Annotated[
    str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster; default: this machine."),
]
RayActors = Annotated[
    int | None,
    typer.Option(min=1, help="Copies of the model; default: one a GPU, else one a CPU core."),
]


def vllm_options(
    engine: str, items: list[str], known: Sequence[str] = ("transformers", "vllm")
) -> dict[str, Any] | None:
    """Engine arguments of vLLM; None for the other engines.

    Raises:
        ConfigError: an unknown engine, or an option that is malformed or not for this one.
    """
    import yaml

    from rewardsteer.errors import ConfigError

    if engine not in known:
        raise ConfigError(f"Unknown engine {engine!r}; expected {' or '.join(known)}.")
    wrong = [item for item in items if engine != "vllm" or "=" not in item]
    if wrong:
        raise ConfigError(
            f"Expected --vllm-option name=value with --engine vllm, got {wrong[0]!r} with "
            f"--engine {engine}."
        )
    if engine != "vllm":
        return None
    return {name: yaml.safe_load(value) for name, _, value in (i.partition("=") for i in items)}
