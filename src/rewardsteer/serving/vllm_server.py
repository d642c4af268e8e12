"""``--engine vllm``: this process becomes vLLM's own server, with our processor in it.

What it serves is vLLM's: OpenAI's forms with ``vllm_xargs`` for the weight (docs/vllm.md), and none
of our other routes.
"""

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from rewardsteer.configuration import load_config
from rewardsteer.data.template import Template, stored_template, writer_of
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.defaults import policy_settings, with_defaults
from rewardsteer.decoding.engines.vllm_engine import check_device
from rewardsteer.decoding.engines.vllm_requests import (
    DEVICE,
    DTYPE,
    MODELS,
    TOP_K,
    WEIGHT,
    check_top_k,
)
from rewardsteer.decoding.fitting import natural_method
from rewardsteer.decoding.methods import asks_candidates
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import load_tokenizer, read_card
from rewardsteer.serving.vllm_template import chat_template

_MODULE = "vllm.entrypoints.openai.api_server"
_PROCESSOR = "rewardsteer.decoding.engines.vllm:RewardProcessor"
# What vLLM's server takes for requests that do not say.
_DEFAULTS = ("top_k", "top_p", "min_p", "repetition_penalty")
# Where vLLM's server looks for a key that is not to stand on its command line.
_KEY = "VLLM_API_KEY"


def replace_by_vllm(
    model: str | None, reward_model: Path | None, *, key: str | None, limits: Sequence[str],
    device: str, name: str | None, host: str, port: int, dtype: str | None,
    options: Mapping[str, Any], **asked: Any,
) -> NoReturn:
    """Run vLLM's server in place of this process.

    Args:
        model, reward_model: folders; the reward model may be None.
        key: the API key; None: none.
        limits: of our own server, which vLLM's has not.
        device: of the policy; there is one, which vLLM was built for.
        name, host, port, dtype, options: see `command`.
        asked: see `plan`.

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
    if limits:
        raise ConfigError(
            f"--limit {limits[0]} is for our own server; vLLM's bounds are engine arguments, as "
            "--vllm-option max_num_seqs=32 or max_model_len=4096."
        )
    check_device(device)
    environment, more = plan(model, reward_model, **asked)
    if key is not None:
        environment[_KEY] = key
    words = command(
        model, guided=reward_model is not None, name=name, host=host, port=port, dtype=dtype,
        options={**more, **options},
    )
    os.execve(sys.executable, words, dict(os.environ) | environment)  # noqa: S606


def plan(
    model: str, reward_model: Path | None, *, method: str | None = None, weight: float = 1.0,
    template: Template | None = None, reward_device: str | None = None,
    reward_dtype: str | None = None, **sampling: Any,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Environment variables and engine arguments with which vLLM's server starts from what our own
    would start from.

    Args:
        model, reward_model: folders; the reward model may be None.
        method: None, or the one that vLLM would guide by anyway.
        weight: of requests that give none.
        template: how conversations are written; None: the reward model's, else the policy's.
        reward_device, reward_dtype: of the reward model.
        sampling: settings of requests that give none; what is missing here, see
            `rewardsteer.decoding.defaults`.

    Raises:
        ConfigError: vLLM cannot do this.
    """
    card = None if reward_model is None else read_card(reward_model)
    natural = "none" if card is None else natural_method(card)
    if method not in (None, natural):
        raise ConfigError(
            f"The method {method!r} needs a reward model; pass --reward-model." if card is None
            else f"vLLM guides by what the reward model was trained for, here {natural!r}; leave "
            f"out --method {method}, or serve with --engine transformers."
        )
    if card is None and weight != 1.0:
        raise ConfigError(f"--weight {weight:g} needs a reward model; pass --reward-model.")
    if "stop" in sampling:
        raise ConfigError("vLLM's server has no stop strings of its own; requests name them, as "
                          "the field stop. Leave out --stop.")
    settings = policy_settings(model)
    config = with_defaults(
        load_config(DecodingConfig, {"method": natural, "weight": weight, **sampling}), settings
    )
    tokenizer, reward = load_tokenizer(model), None
    environment: dict[str, str] = {}
    if card is not None and reward_model is not None:
        reward = SimpleNamespace(
            tokenizer=load_tokenizer(reward_model), template=stored_template(card.template)
        )
        environment = {
            MODELS: json.dumps([str(reward_model)]), DEVICE: reward_device or "",
            DTYPE: reward_dtype or "", WEIGHT: repr(config.weight), TOP_K: "",
        }
        if asks_candidates(natural):
            check_top_k(config.top_k)
            environment[TOP_K] = str(config.top_k)
    written, carrier = writer_of(template, tokenizer, reward)
    greedy = config.mode == "greedy"
    return environment, {
        # Of the policy's own settings our rule takes those that all engines have.
        "generation_config": "vllm",
        "override_generation_config": {
            "temperature": 0.0 if greedy else config.temperature,
            **{name: getattr(config, name) for name in _DEFAULTS},
        },
        "chat_template": _kept(chat_template(written, carrier)),
    }


def _kept(source: str) -> str:
    """A file with a chat template, for the process that this one becomes."""
    with tempfile.NamedTemporaryFile(
        "w", suffix=".jinja", prefix="rewardsteer-", delete=False, encoding="utf-8"
    ) as stream:
        stream.write(source)
    return stream.name


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
            words += [f"--{flag}", value if isinstance(value, str) else json.dumps(value)]
    return words
