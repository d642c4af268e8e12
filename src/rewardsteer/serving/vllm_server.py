"""``--engine vllm``: this process becomes vLLM's own server, with our processor in it.

What it serves is vLLM's: OpenAI's forms with ``vllm_xargs`` for the weight (docs/vllm.md), and none
of our other routes.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from rewardsteer.decoding.engines.vllm_requests import DEVICE, DTYPE, MODELS
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import read_card
from rewardsteer.models.compatibility import natural_method

_MODULE = "vllm.entrypoints.openai.api_server"
_PROCESSOR = "rewardsteer.decoding.engines.vllm:RewardProcessor"
# Where vLLM's server looks for a key that is not to stand on its command line.
_KEY = "VLLM_API_KEY"


def replace_by_vllm(
    model: str | None, reward_model: Path | None, *, method: str | None, key: str | None,
    reward_device: str | None, reward_dtype: str | None, **server: Any,
) -> NoReturn:
    """Run vLLM's server in place of this process.

    Args:
        model, reward_model: folders; the reward model may be None.
        method: None, or the one that vLLM would guide by anyway.
        key: the API key; None: none.
        reward_device, reward_dtype: of the reward model.
        server: see `command`.

    Raises:
        ConfigError: vLLM is not installed, or cannot do this.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "The engine vllm needs vLLM, which is not installed here; run pip install "
            "'rewardsteer[vllm]', or serve with --engine transformers."
        )
    if model is None:
        raise ConfigError(
            "The engine vllm serves a policy; pass --model. How vLLM serves a reward model alone "
            "stands in docs/vllm.md."
        )
    environment = dict(os.environ)
    if key is not None:
        environment[_KEY] = key
    if reward_model is not None:
        card = read_card(reward_model)
        natural = natural_method(card)
        if method not in (None, natural):
            raise ConfigError(
                f"vLLM guides by what the reward model was trained for, here {natural!r}; leave "
                f"out --method {method}, or serve with --engine transformers."
            )
        environment |= {
            MODELS: str(reward_model), DEVICE: reward_device or "", DTYPE: reward_dtype or "",
        }
    elif method not in (None, "none"):
        raise ConfigError(f"The method {method!r} needs a reward model; pass --reward-model.")
    words = command(model, guided=reward_model is not None, **server)
    os.execve(sys.executable, words, environment)  # noqa: S606


def command(
    model: str, *, guided: bool, name: str | None, host: str, port: int, dtype: str | None,
    options: Mapping[str, Any],
) -> list[str]:
    """The words that start vLLM's server.

    Args:
        model: the policy.
        guided: whether our processor takes part.
        name: what clients call the policy; None: its folder's name.
        host, port: where it listens.
        dtype: of the policy; None: vLLM's choice.
        options: engine arguments of vLLM by name.
    """
    called = name or (Path(model).resolve().name if Path(model).is_dir() else model)
    words = [sys.executable, "-m", _MODULE, "--model", model, "--served-model-name", called,
             "--host", host, "--port", str(port)]
    if dtype is not None:
        words += ["--dtype", dtype]
    if guided:
        words += ["--logits-processors", _PROCESSOR]
    for option, value in options.items():
        flag = option.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words
