"""Tiny chat models: tokenizers with the chat templates of well-known families, and what a model's
author computes with plain transformers."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from tokenizers.decoders import Fuse
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tests.fakes import CHARACTERS, spread_weights

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
THINKING = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|User|>' + message['content'] }}{% else %}"
    "{{ '<|Assistant|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)


class Family(NamedTuple):
    """A family's template and special tokens; ``stops``: what its generation settings name."""

    template: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str | None
    stops: tuple[str, ...]


FAMILIES = {
    # SmolLM2, Qwen with pad = eos: the template ends in a newline behind the end of the turn.
    "chatml": Family(CHATML, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), None, "<|im_end|>",
                     "<|im_end|>", ("<|im_end|>", "<|endoftext|>")),
    # Qwen2.5: padding and end of text are one token, the end of the turn is another.
    "qwen": Family(CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), None, "<|im_end|>",
                   "<|endoftext|>", ("<|im_end|>", "<|endoftext|>")),
    # The end of the turn is not eos_token.
    "gemma": Family(GEMMA, ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
                    "<bos>", "<eos>", "<pad>", ("<eos>", "<end_of_turn>")),
    # Nothing behind the end of the turn, and no padding token.
    "llama3": Family(LLAMA3, ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                              "<|end_header_id|>", "<|eot_id|>"), "<|begin_of_text|>",
                     "<|eot_id|>", None, ("<|end_of_text|>", "<|eot_id|>")),
    # As before, with pad = eos: plain transformers does not read the last token.
    "llama3-pad-eos": Family(LLAMA3, ("<|begin_of_text|>", "<|end_of_text|>",
                                      "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
                             "<|begin_of_text|>", "<|eot_id|>", "<|eot_id|>",
                             ("<|end_of_text|>", "<|eot_id|>")),
    "llama2": Family(LLAMA2, ("<s>", "</s>"), "<s>", "</s>", None, ("</s>",)),
    "zephyr": Family(ZEPHYR, ("<s>", "</s>"), "<s>", "</s>", "</s>", ("</s>",)),
    "thinking": Family(THINKING, ("<bos>", "<|User|>", "<|Assistant|>", "<|end|>", "<eos>"),
                       "<bos>", "<eos>", "<eos>", ("<eos>", "<|end|>")),
}


def chat_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """One token a character, with a family's special tokens, beginning-of-text and template. Two
    newlines are one token, as in real vocabularies, so that texts may melt at their seams."""
    about = FAMILIES[family]
    pieces = ["<unk>", *about.special, "\n\n", *CHARACTERS, "[", "]", "/", "|", "<", ">", "_"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|[\s\S]"), behavior="isolated")
    tokenizer.decoder = Fuse()
    if about.bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{about.bos} $A", special_tokens=[(about.bos, vocabulary[about.bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token=about.bos, eos_token=about.eos,
        pad_token=about.pad, extra_special_tokens=list(about.special),
        chat_template=about.template, clean_up_tokenization_spaces=False,
    )


def chat_config(family: str, **changes: Any) -> LlamaConfig:
    """Of a two-layer Llama for a family's tokenizer."""
    tokenizer = chat_tokenizer(family)
    return LlamaConfig(**{
        "vocab_size": len(tokenizer) + 3, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 512, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    } | changes)


def save_classifier(folder: Path, family: str, seed: int = 0) -> Path:
    """A foreign reward model: a one-label classifier of a chat family, without a card."""
    torch.manual_seed(seed)
    model = LlamaForSequenceClassification(chat_config(family, num_labels=1)).eval()
    spread_weights(model, 0.12)
    model.save_pretrained(folder)
    chat_tokenizer(family).save_pretrained(folder)
    return folder


def save_policy(folder: Path, family: str, seed: int = 0) -> Path:
    """A chat model of a family, whose generation settings name its stop tokens."""
    torch.manual_seed(seed)
    tokenizer = chat_tokenizer(family)
    model = LlamaForCausalLM(chat_config(family)).eval()
    spread_weights(model, 0.12)
    stops = tokenizer.convert_tokens_to_ids(list(FAMILIES[family].stops))
    model.generation_config.eos_token_id = stops
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain_reward(folder: Path, messages: list[dict[str, str]], **written: Any) -> float:
    """What a scalar model's author computes: its chat template, its classifier, one row."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer.apply_chat_template(
        messages, return_tensors="pt", return_dict=True, **written
    )
    with torch.no_grad():
        return float(model.eval()(**ids).logits[0, 0])


def plain_logit(folder: Path, messages: list[dict[str, str]]) -> float:
    """The same of a vocabulary head: the logit of the last token at the one before it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = model.eval()(**ids).logits[0]
    return float(logits[-2, ids["input_ids"][0, -1]])
