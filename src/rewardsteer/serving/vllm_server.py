"""``--engine vllm``: this process becomes vLLM's own server, with the reward model in its model.

It serves vLLM's routes: OpenAI's forms with ``vllm_xargs`` for the weight (docs/vllm.md), and none
of our own.
"""

import importlib.util
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from rewardsteer.configuration import load_config
from rewardsteer.data.template import Template, stored_template, writer_of
from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.default_method import WITHOUT_REWARD_MODEL, default_method
from rewardsteer.decoding.defaults import policy_settings, with_defaults
from rewardsteer.decoding.engines.vllm_checks import RULES
from rewardsteer.decoding.engines.vllm_settings import guided_by, vocabulary_card
from rewardsteer.decoding.engines.vllm_start import check_device, for_cpus
from rewardsteer.decoding.methods import METHODS
from rewardsteer.errors import ConfigError
from rewardsteer.models.checkpoint import CheckpointCard, load_tokenizer
from rewardsteer.serving.vllm_template import chat_template

logger = logging.getLogger(__name__)

_MODULE = "vllm.entrypoints.openai.api_server"
# Defaults that vLLM's server gets for requests that leave these fields out.
_DEFAULTS = ("top_k", "top_p", "min_p", "repetition_penalty")
# Where vLLM's server reads its key, which is kept off the command line.
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
        limits: limits that were set and that vLLM's server does not have.
        device: of the policy; there is one, which vLLM was built for.
        name, host, port, dtype, options: see `command`.
        asked: see `plan`.

    Raises:
        ConfigError: vLLM is not installed, or cannot do this.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "The engine vllm needs vLLM, which is not installed here; run pip install "
            "'rewardsteer[vllm]', or serve with the engine transformers (--engine)."
        )
    if model is None:
        raise ConfigError(
            "The engine vllm serves a policy; name one (--model). How vLLM serves a reward model "
            "alone stands in docs/vllm.md."
        )
    if limits:
        raise ConfigError(
            f"The limit {limits[0]} (--limit) is for our own server; vLLM's bounds are engine "
            "arguments (--vllm-option), such as max_num_seqs=32 or max_model_len=4096."
        )
    check_device(device)
    more = plan(model, reward_model, **asked)
    for option, value in options.items():
        both = isinstance(value, dict) and isinstance(more.get(option), dict)
        more[option] = {**more[option], **value} if both else value
    words = command(model, name=name, host=host, port=port, dtype=dtype, options=for_cpus(more))
    environment = dict(os.environ) | ({} if key is None else {_KEY: key})
    os.execve(sys.executable, words, environment)  # noqa: S606


def plan(
    model: str, reward_model: Path | None, *, method: str | None = None, weight: float = 1.0,
    template: Template | None = None, reward_device: str | None = None,
    reward_dtype: str | None = None, **sampling: Any,
) -> dict[str, Any]:
    """vLLM engine arguments that correspond to the settings of our own server.

    Args:
        model, reward_model: folders; the reward model may be None.
        method: None, or the method by which vLLM guides in any case.
        weight: of requests that give none.
        template: how conversations are written; None: the reward model's, else the policy's.
        reward_device, reward_dtype: None; the reward model runs where the policy does.
        sampling: settings of requests that give none; what is missing here, see
            `rewardsteer.decoding.defaults`.

    Raises:
        ConfigError: vLLM cannot do this.
        MismatchError: the reward model has no vocabulary head.
    """
    if reward_device or reward_dtype:
        raise ConfigError(
            "In vLLM the reward model runs where the policy does, in its precision; leave out "
            "the reward model's own (--reward-device, --reward-dtype)."
        )
    card = None if reward_model is None else vocabulary_card(reward_model.name, reward_model)
    natural = _method(card, method)
    if card is None and weight != 1.0:
        raise ConfigError(
            f"The weight {weight:g} (--weight) needs a reward model; give one (--reward-model)."
        )
    if "stop" in sampling:
        raise ConfigError("vLLM's server has no stop strings of its own; requests name them, as "
                          "the field stop. Leave them out (--stop).")
    settings = policy_settings(model)
    config = with_defaults(
        load_config(DecodingConfig, {"method": natural, "weight": weight, **sampling}), settings
    )
    tokenizer, reward = load_tokenizer(model), None
    guided: dict[str, Any] = {}
    if card is not None and reward_model is not None:
        reward = SimpleNamespace(
            tokenizer=load_tokenizer(reward_model), template=stored_template(card.template)
        )
        guided = {"hf_overrides": guided_by([reward_model], config.weight)}
    written, carrier = writer_of(template, tokenizer, reward)
    greedy = config.mode == "greedy"
    return guided | {
        # Of the policy's own settings only those count that all engines support.
        "generation_config": "vllm",
        "override_generation_config": {
            "temperature": 0.0 if greedy else config.temperature,
            **{name: getattr(config, name) for name in _DEFAULTS},
        },
        # The source itself: nobody would remove a file once vLLM has replaced this process.
        "chat_template": chat_template(written, carrier),
    }


def _method(card: CheckpointCard | None, asked: str | None) -> str:
    """The one method of a server: what its reward model was trained for, or ``none``.

    Raises:
        ConfigError: vLLM does not know it, or another one is asked for.
    """
    choice = WITHOUT_REWARD_MODEL if card is None else default_method(card)
    if METHODS.get(choice.name) not in RULES:
        raise ConfigError(
            f"vLLM does not know the method {choice.name!r}, {choice.why}; serve with the engine "
            "transformers (--engine)."
        )
    if asked is None:
        logger.info(choice.told("vLLM's server has no other"))
    if asked not in (None, choice.name):
        raise ConfigError(
            f"The method {asked!r} needs a reward model; give one (--reward-model)."
            if card is None else
            f"vLLM guides by what the reward model was trained for, here {choice.name!r}; leave "
            "out the method (--method), or serve with the engine transformers (--engine)."
        )
    return choice.name


def command(
    model: str, *, name: str | None, host: str, port: int, dtype: str | None,
    options: Mapping[str, Any],
) -> list[str]:
    """The command line that starts vLLM's server.

    Args:
        model: the policy.
        name: what clients call the policy; None: its folder's name.
        host, port: the address that it listens on.
        dtype: of the policy; None: vLLM's choice.
        options: engine arguments of vLLM by name.
    """
    called = name or (Path(model).resolve().name if Path(model).is_dir() else model)
    words = [sys.executable, "-m", _MODULE, "--model", model, "--served-model-name", called,
             "--host", host, "--port", str(port)]
    if dtype is not None:
        words += ["--dtype", dtype]
    for option, value in options.items():
        flag = option.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            # One word, because a value may begin with a dash.
            words.append(f"--{flag}={value if isinstance(value, str) else json.dumps(value)}")
    return words
