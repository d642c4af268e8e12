"""The backbone within a Hugging Face model, and classifiers for architectures that have none."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn


def backbone_name(carrier: Any) -> str:
    """The name of the part of a model that gives hidden states after the final norm.

    Mostly the model's own ``base_model_prefix``; a few architectures (Llama 4, Mllama) name a part
    there that only their multimodal sibling has.

    Raises:
        LookupError: no part of it is a model itself.
    """
    prefix: str = carrier.base_model_prefix
    if isinstance(getattr(carrier, prefix, None), nn.Module):
        return prefix
    for name, child in carrier.named_children():
        if hasattr(child, "config") and hasattr(child, "get_input_embeddings"):
            return str(name)
    raise LookupError(f"{type(carrier).__name__} has no backbone of its own")


def backbone_of(carrier: Any) -> Any:
    """The part of a model that `backbone_name` names."""
    return getattr(carrier, backbone_name(carrier))


def accepts(module: Any, argument: str) -> bool:
    """Whether a module's forward pass takes an argument of that name.

    Wrappers pass anything on: peft's, and a ``forward`` that somebody put in place of the class's
    own. What they wrap names the argument.
    """
    inner = module.get_base_model() if hasattr(module, "get_base_model") else module
    own = inspect.signature(inner.forward).parameters
    if argument in own:
        return True
    passes_on = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in own.values())
    return passes_on and argument in inspect.signature(type(inner).forward).parameters


def classifier_config(config: Any) -> Any:
    """The configuration by which transformers loads a one-label classifier, once it knows a class
    for it.

    The library has classifiers for half of its causal language models. For the others one is made
    as its own are, and registered in this process: the backbone under the name it has in the
    language model, and a linear ``score`` over the last token.

    Args:
        config: of a causal language model, or of a classifier of that architecture.
    """
    from transformers import AutoModelForSequenceClassification as Classifier
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    )

    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return config
    text = config.get_text_config(decoder=True)
    if type(text) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return text
    for one in (config, text):
        causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(one), None)
        if causal is not None and causal.config_class is type(one):
            # Without exist_ok a class for a configuration of the library's own is passed over.
            Classifier.register(type(one), _classifier_class(causal, one), exist_ok=True)
            return one
    return config


def _classifier_class(causal: Any, config: Any) -> Any:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    family = next(
        base for base in causal.__mro__
        if issubclass(base, PreTrainedModel) and base.__name__.endswith("PreTrainedModel")
    )
    # A language model without weights, which is quickly made, shows where its backbone is.
    with torch.device("meta"):
        plan = causal(config)
    name, inner = backbone_name(plan), type(backbone_of(plan))

    def initialise(self: Any, config: Any) -> None:
        family.__init__(self, config)
        self.num_labels = config.num_labels
        setattr(self, name, inner(config))
        self.score = nn.Linear(config.get_text_config().hidden_size, self.num_labels, bias=False)
        self.post_init()

    def forward(
        self: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None, **options: Any,
    ) -> Any:
        given = {key: value for key, value in options.items() if value is not None}
        given.pop("labels", None)
        states = getattr(self, name)(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds,
            **given,
        ).last_hidden_state
        last = torch.full(states.shape[:1], -1, device=states.device)
        padding = self.config.get_text_config().pad_token_id
        if input_ids is not None and padding is not None:
            columns = torch.arange(input_ids.shape[1], device=states.device)
            last = (columns * (input_ids != padding).to(states.device)).argmax(dim=1)
        logits = self.score(states[torch.arange(len(states), device=states.device), last])
        return SequenceClassifierOutput(logits=logits)

    title = causal.__name__
    for ending in ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "Decoder"):
        title = title.removesuffix(ending)
    members = {
        "__init__": initialise, "forward": forward, "base_model_prefix": name,
        # The library looks there for what the architecture supports and how it is initialised.
        "__module__": causal.__module__,
        "config_class": type(config),
        # The language model's own values are about an output layer, which a classifier lacks.
        "_tied_weights_keys": None, "_keys_to_ignore_on_load_unexpected": [r"^lm_head\."],
    }
    return type(f"{title}ForSequenceClassification", (family,), members)
