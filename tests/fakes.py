"""Tiny models and tokenizers that stand in for real ones: seconds, no download."""

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.decoders import Fuse
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rewardsteer.tensors import RewardOutput, TokenStates

CHARACTERS = string.ascii_letters + string.digits + " .,:;!?=+*-#'\n"


def character_tokenizer(
    characters: str = CHARACTERS, *, pad_is_eos: bool = False, padding_side: str = "right"
) -> PreTrainedTokenizerFast:
    """One token a character; ``<eos>`` and, unless ``pad_is_eos``, ``<pad>`` are special."""
    special = ["<eos>", "<unk>"] + ([] if pad_is_eos else ["<pad>"])
    vocabulary = {token: index for index, token in enumerate(special + list(characters))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<eos>" if pad_is_eos else "<pad>",
        padding_side=padding_side,
        clean_up_tokenization_spaces=False,
    )


def tiny_causal_lm(
    kind: str = "llama", *, vocab_size: int = 80, hidden: int = 32, seed: int = 0,
    tie_word_embeddings: bool = False, dtype: torch.dtype = torch.float32,
) -> torch.nn.Module:
    """A random two-layer causal LM; kind: ``llama``, ``gpt_neox``, ``gpt2``,
    ``qwen3``, ``mistral`` or ``gemma2``."""
    torch.manual_seed(seed)
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 2}
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=vocab_size, hidden_size=hidden, intermediate_size=2 * hidden,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            max_position_embeddings=512, tie_word_embeddings=tie_word_embeddings, **special))
    elif kind == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(
            vocab_size=vocab_size, hidden_size=hidden, intermediate_size=2 * hidden,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=512,
            tie_word_embeddings=tie_word_embeddings, **special))
    elif kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(
            vocab_size=vocab_size, n_embd=hidden, n_layer=2, n_head=2, n_positions=512,
            tie_word_embeddings=tie_word_embeddings, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0, **special))
    elif kind in ("qwen3", "mistral", "gemma2"):
        config = AutoConfig.for_model(
            kind, vocab_size=vocab_size, hidden_size=hidden, intermediate_size=2 * hidden,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=hidden // 2,
            max_position_embeddings=512, tie_word_embeddings=tie_word_embeddings, **special)
        model = AutoModelForCausalLM.from_config(config)
    else:
        raise ValueError(f"unknown kind {kind!r}")
    # Larger weights than the library's default spread next-token scores out, so that greedy
    # choices are far from ties and comparisons of two implementations are sharp.
    spread_weights(model, 0.3 / hidden**0.25)
    return model.to(dtype).eval()


def spread_weights(model: torch.nn.Module, std: float) -> None:
    """Draw all matrices of a model anew, from a normal distribution."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=std)


def fixed_output(sequence_rewards: torch.Tensor, hidden: torch.Tensor) -> RewardOutput:
    """An output made of numbers: rewards ``[R]``, states ``[R, T, D]``."""
    return RewardOutput(sequence_rewards, TokenStates.of(hidden))


def save_tiny(
    folder: Path, kind: str = "llama", seed: int = 0, **tokenizer_options: object
) -> Path:
    """A tiny causal LM with its character tokenizer as an ordinary Hugging Face folder."""
    tokenizer = character_tokenizer(**tokenizer_options)  # type: ignore[arg-type]
    model = tiny_causal_lm(kind, vocab_size=len(tokenizer), seed=seed)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
