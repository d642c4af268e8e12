"""Llama backbones with seeded random weights, large enough that arithmetic and not Python is
timed."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from benchmarks.harness import device

PADDING = 0
POSITIONS = 4096


@dataclass(frozen=True)
class Backbone:
    """Layers × size; heads of 64 channels and feed-forward layers of 8/3 · size unless given."""

    layers: int
    size: int
    vocabulary: int
    heads: int | None = None
    key_value_heads: int | None = None
    feed_forward: int | None = None

    def __str__(self) -> str:
        return f"Llama, {self.layers} layers × {self.size}, vocabulary {self.vocabulary:,}"

    def config(self) -> LlamaConfig:
        """The Hugging Face configuration, with a reward head of one label."""
        heads = self.heads or max(self.size // 64, 1)
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.size, num_hidden_layers=self.layers,
            intermediate_size=self.feed_forward or 8 * self.size // 3 // 16 * 16,
            num_attention_heads=heads, num_key_value_heads=self.key_value_heads or heads,
            max_position_embeddings=POSITIONS, tie_word_embeddings=False, num_labels=1,
            pad_token_id=PADDING, bos_token_id=None, eos_token_id=1,
        )

    def causal_lm(self) -> LlamaForCausalLM:
        """A causal language model, the same one at each call."""
        return self._build(LlamaForCausalLM)

    def classifier(self) -> LlamaForSequenceClassification:
        """A sequence classifier with one label, the same one at each call."""
        return self._build(LlamaForSequenceClassification)

    def _build(self, kind: Any) -> Any:
        torch.manual_seed(0)
        with torch.device(device()):
            return kind(self.config()).train()


def precision() -> str:
    """What training computes in: ``bf16`` on a GPU, else ``fp32``."""
    return "bf16" if device() == "cuda" else "fp32"


def autocast() -> torch.autocast:
    """Autocast to the type of `precision`, for a forward pass outside of training."""
    return torch.autocast(device(), torch.bfloat16, enabled=precision() == "bf16")
