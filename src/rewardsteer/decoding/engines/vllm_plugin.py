"""The entry point ``vllm.general_plugins``: makes vLLM know `RewardGuidedForCausalLM`.

Every vLLM process loads it, whatever it serves. So it imports little, and nothing else happens
until somebody asks for the architecture.
"""

from typing import TYPE_CHECKING, Any

from rewardsteer.errors import ConfigError

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig

_FIRST, _BEFORE = "0.32", "0.33.dev0"
PROCESSOR = "rewardsteer.decoding.engines.vllm_guide:RewardProcessor"
# Draft methods that look at token ids alone; others read the policy's hidden states.
_DRAFTS = ("ngram", "ngram_gpu", "suffix")


def register() -> None:
    """Register the model class, and the checks that vLLM runs when it is asked for."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from rewardsteer.decoding.engines.vllm_model import RewardGuidedForCausalLM
    from vllm import ModelRegistry

    name = RewardGuidedForCausalLM.__name__
    if name not in ModelRegistry.models:
        # The class and not its name, which vLLM would import in a process of its own.
        ModelRegistry.register_model(name, RewardGuidedForCausalLM)
        MODELS_CONFIG_MAP[name] = _GuidedConfig


class _GuidedConfig:
    """Hooks that vLLM calls in its front end, once it has read its configuration."""

    @staticmethod
    def verify_and_update_model_config(model_config: "ModelConfig") -> None:
        """Note the policy's architecture, and do what vLLM does for it."""
        from vllm.transformers_utils.config import get_config

        from rewardsteer.decoding.engines.vllm_settings import ENTRY, read_settings

        check_version()
        own = model_config.hf_config
        settings = read_settings(own)
        original = get_config(
            model_config.hf_config_path or model_config.model, model_config.trust_remote_code,
            model_config.revision, model_config.code_revision, model_config.config_format,
        )
        setattr(own, ENTRY, settings.model_dump() | {"policy": list(original.architectures)})
        for hook in _hooks(own):
            hook.verify_and_update_model_config(model_config)

    @staticmethod
    def verify_and_update_config(vllm_config: "VllmConfig") -> None:
        """Check what can be checked before models load, and put the processor in place."""
        from rewardsteer.decoding.engines.vllm_checks import check
        from rewardsteer.decoding.engines.vllm_guide import RewardProcessor
        from rewardsteer.decoding.engines.vllm_settings import read_settings

        model = vllm_config.model_config
        for hook in _hooks(model.hf_config):
            hook.verify_and_update_config(vllm_config)
        drafts = vllm_config.speculative_config
        if drafts is not None and not (
            vllm_config.use_v2_model_runner and drafts.method in _DRAFTS
        ):
            raise ConfigError(
                "Reward-guided decoding goes with speculative decoding only in vLLM's V2 runner "
                f"and with drafts of the methods {', '.join(_DRAFTS)}; leave out the speculative "
                "configuration."
            )
        settings = read_settings(model.hf_config)
        check(settings, model)
        RewardProcessor.add_engine(vllm_config, settings.folders)
        others = [one for one in model.logits_processors or [] if one != PROCESSOR]
        model.logits_processors = [*others, PROCESSOR]


def _hooks(hf_config: Any) -> list[Any]:
    """vLLM's own class for the policy's architecture, where it has one."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from rewardsteer.decoding.engines.vllm_settings import read_settings

    names = read_settings(hf_config).policy
    return [MODELS_CONFIG_MAP[name] for name in names[:1] if name in MODELS_CONFIG_MAP]


def check_version() -> None:
    """Raise `ConfigError` unless this vLLM's interfaces of models and processors are known."""
    from packaging.version import Version

    import vllm

    if not Version(_FIRST) <= Version(vllm.__version__) < Version(_BEFORE):
        raise ConfigError(
            f"rewardsteer guides vLLM {_FIRST}.x, found {vllm.__version__}; install "
            f"'vllm~={_FIRST}.0'."
        )
