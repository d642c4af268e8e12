"""Device and dtype options of the commands."""

from typing import Annotated, Any

import typer

from rewardsteer.errors import ConfigError

_NAMES = "auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:1 or mps."
Device = Annotated[str, typer.Option(help=_NAMES)]
PolicyDevice = Annotated[str, typer.Option(help=f"Device of the policy: {_NAMES}")]
RewardDevice = Annotated[
    str | None, typer.Option(help="Device of the reward model; default: the policy's.")
]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16 or float16; default: as saved.")
]
RewardDtype = Annotated[
    str | None, typer.Option(help="Dtype of the reward model; default: as saved.")
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        help="Spread the policy over devices, instead of --device: auto, balanced, balanced_low_0, "
        "sequential, or {module: device, ...}.",
    ),
]

_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def parse_device_map(text: str | None, device: str, engine: str) -> dict[str, Any]:
    """The option of `load_policy` that places the policy on several devices; {} without a map.

    Raises:
        ConfigError: an unknown map, or a map together with a device or another engine.
    """
    if text is None:
        return {}
    import yaml

    if device != "auto":
        raise ConfigError(
            f"--device-map {text} says where the parts of the policy go, and --device {device} "
            "where all of it goes; leave out one of the two."
        )
    if engine != "transformers":
        raise ConfigError(
            "--device-map is for the transformers engine; vLLM spreads a policy by --vllm-option "
            "tensor_parallel_size=2."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    places = value.values() if isinstance(value, dict) and value else [None]
    if value not in _MAPS and not all(isinstance(one, str | int) for one in places):
        raise ConfigError(
            f"Unknown --device-map {text!r}; expected one of {', '.join(_MAPS)}, or a mapping of "
            "modules to devices as {model.embed_tokens: 0, model.layers: cpu}."
        )
    return {"device_map": value}
