"""The choice of the engine that runs a model."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from rewardsteer.cli.devices import (
    DeviceMap,
    Dtype,
    PolicyDevice,
    RewardDevice,
    RewardDtype,
    parse_device_map,
)
from rewardsteer.cli.grouped import grouped
from rewardsteer.decoding.engines.choice import EngineChoice
from rewardsteer.decoding.engines.registry import ENGINES
from rewardsteer.devices import check_dtypes
from rewardsteer.errors import ConfigError

Engine = Annotated[str, typer.Option(help="Engine that runs the model: transformers or vllm.")]
AnyEngine = Annotated[
    str, typer.Option(help=f"Engine that runs the policy: {', '.join(ENGINES.names())}.")
]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="For --engine openai: the server's address, ending in /v1."),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        help="For --engine openai: the policy's tokenizer, a folder or hub name. Default: --model "
        "if that is a folder; without one, the server formats prompts and returns whole responses."
    ),
]
KeyEnv = Annotated[
    str | None,
    typer.Option(
        help="For --engine openai: environment variable with the key; default: OPENAI_API_KEY."
    ),
]
VllmOptions = Annotated[
    list[str] | None,
    typer.Option("--vllm-option", help="Engine argument of vLLM, as name=value; repeatable."),
]

RayAddress = Annotated[
    str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster; default: this machine."),
]
RayActors = Annotated[
    int | None,
    typer.Option(min=1, help="Copies of the model; default: one per GPU, else one per CPU core."),
]


@dataclass(frozen=True)
class EngineOptions:
    """The options about the engine that runs the policy and the reward model."""

    device: PolicyDevice = "auto"
    device_map: DeviceMap = None
    reward_device: RewardDevice = None
    dtype: Dtype = None
    reward_dtype: RewardDtype = None
    engine: AnyEngine = "transformers"
    vllm_option: VllmOptions = None
    base_url: BaseUrl = None
    tokenizer: Tokenizer = None
    key_env: KeyEnv = None


# Decorator: replaces a command's parameter ``running`` by one option per field of `EngineOptions`.
engine_options = grouped(
    "running", list(inspect.signature(EngineOptions).parameters.values()),
    lambda given: EngineOptions(**given),
)


def choose_engine(
    given: EngineOptions, model: str | None, *, no_policy: bool = False
) -> EngineChoice:
    """The engine chosen by the options; ``no_policy``: the command may run without a policy.

    Raises:
        ConfigError: an unknown engine, or an option is missing, malformed or for another engine.
    """
    name, tokenizer = given.engine, given.tokenizer
    check_dtypes(given.dtype, given.reward_dtype)
    server = openai_options(name, given.base_url, tokenizer, given.key_env)
    vllm = vllm_options(name, given.vllm_option or [], ENGINES.names())
    spread = parse_device_map(given.device_map, given.device, name)
    if server is not None:
        if tokenizer is None and model is not None and Path(model).is_dir():
            tokenizer = model
        return EngineChoice(name, tokenizer, server | {"model": model})
    if model is None and not no_policy:
        raise ConfigError("Expected --model, the policy: a causal LM folder or hub name.")
    options = {"device": given.device, "dtype": given.dtype} | spread
    if vllm is not None:
        options |= {
            "reward_device": given.reward_device, "reward_dtype": given.reward_dtype, **vllm
        }
    return EngineChoice(name, model, options, vllm or {})


def vllm_options(
    engine: str, items: list[str], known: Sequence[str] = ("transformers", "vllm")
) -> dict[str, Any] | None:
    """Engine arguments of vLLM; None for other engines.

    Raises:
        ConfigError: an unknown engine, or an option that is malformed or for another engine.
    """
    import yaml

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


def openai_options(
    engine: str, url: str | None, tokenizer: str | None, key_env: str | None
) -> dict[str, Any] | None:
    """Arguments of the openai engine; None for other engines.

    Raises:
        ConfigError: an option is missing, or for another engine.
    """
    if engine != "openai":
        if url or tokenizer or key_env:
            raise ConfigError(
                "--base-url, --tokenizer and --key-env are for --engine openai, got --engine "
                f"{engine}."
            )
        return None
    if not url:
        raise ConfigError(
            "--engine openai needs --base-url, the server's address, as in "
            "http://127.0.0.1:8000/v1."
        )
    return {"url": url} | ({"key_env": key_env} if key_env else {})
