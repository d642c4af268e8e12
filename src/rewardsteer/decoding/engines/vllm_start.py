"""Starting vLLM in this process, and the device that it runs on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from rewardsteer.decoding.engines.vllm_plugin import register
from rewardsteer.devices import AUTO, choose_device
from rewardsteer.errors import ConfigError
from rewardsteer.faults import faults


@dataclass
class Running:
    """What runs in this process for several engines, one after another.

    Attributes:
        longest: maximum of prompt and response tokens of all runs; 0: that of the first run; None:
            as many as the policy can read.
        spare: 1 where likelihoods of whole rows will be asked for, whatever the method: vLLM then
            draws a token after them.
        policies: a ``vllm.LLM`` by the policy's folder or hub name.
    """

    longest: int | None = 0
    spare: int = 0
    policies: dict[str, Any] = field(default_factory=dict)

    def stop(self) -> None:
        """Stop all of them: stopping one would end what they have in common."""
        if not self.policies:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        for llm in self.policies.values():
            llm.llm_engine.engine_core.shutdown()
        self.policies.clear()
        del llm
        # Again, now that nothing refers to them.
        cleanup_dist_env_and_memory()


def built_for() -> str:
    """Device type on which vLLM runs; raises `ConfigError` where it is not installed."""
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise _missing(error) from error
    return str(current_platform.device_type)


def check_device(name: str) -> None:
    """Raise `ConfigError` if the policy's device is not vLLM's."""
    if name != AUTO and choose_device(name).type != built_for():
        raise ConfigError(
            f"The vLLM that is installed here runs models on {built_for()}, not on {name}; leave "
            "out device= (--device), or use the engine transformers (--engine)."
        )


def for_cpus(options: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments, without chunked prefill where vLLM runs on CPUs: there it (0.32) stops at a
    request with a seed whose prompt it reads in chunks. Arguments that are given stay."""
    chunked = built_for() != "cpu" or "max_num_batched_tokens" in options
    return dict(options) if chunked else {"enable_chunked_prefill": False, **options}


def start(source: str, **options: Any) -> Any:
    """A ``vllm.LLM`` in this process.

    Raises:
        ConfigError: vLLM is not installed, or refuses an option.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        from vllm import LLM
    except ImportError as error:
        raise _missing(error) from error
    register()
    try:
        return LLM(source, **for_cpus(options))
    except ValidationError as error:
        # The error's own text may hold the whole configuration.
        reasons = [one.words for one in faults(error.errors(include_url=False))]
        raise ConfigError(f"vLLM refuses to start: {'; '.join(reasons)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"vLLM refuses to start: {error}") from error


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(
        f"vLLM cannot be imported ({error}); install rewardsteer[vllm], or use the transformers "
        "engine."
    )
