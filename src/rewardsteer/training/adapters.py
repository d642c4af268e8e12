"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft."""

from torch import nn

from rewardsteer.errors import ConfigError
from rewardsteer.models.reward_model import RewardModel
from rewardsteer.training.config import LoraSettings


def add_adapters(model: RewardModel, settings: LoraSettings) -> None:
    """Freeze the backbone, put adapters on it and leave the head trainable, in place.

    The head is trained whole: it is new (scalar) or must come apart from the language model's
    (vocabulary), which a low-rank change of it could not do.

    Raises:
        ConfigError: the target modules are not in the model.
    """
    from peft import LoraConfig, get_peft_model

    layer = model.head_config.head_class.layer(model.carrier)
    name = next(name for name, module in model.carrier.named_modules() if module is layer)
    options = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        exclude_modules=[name],
        modules_to_save=[name],
    )
    try:
        model.base = get_peft_model(model.base, options)
    except ValueError as error:
        layers = {
            name.rpartition(".")[2] for name, module in model.carrier.named_modules()
            if isinstance(module, nn.Linear) and module is not layer
        }
        raise ConfigError(
            f"LoRA cannot be set up with lora.target_modules={settings.target_modules} ({error}); "
            f"the linear layers of the base model are {', '.join(sorted(layers))}."
        ) from error
