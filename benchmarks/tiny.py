"""Tiny random models of many architectures, made in a second each without downloads."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.fakes import character_tokenizer

_SIZE, _LIMIT = 32, 512
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 2}
# Names of the fields in older configurations.
_GPT = {"n_embd": _SIZE, "n_layer": 2, "n_head": 2, "n_positions": _LIMIT}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MAMBA = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}
_LATENT = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "num_key_value_heads": 2,
}

# Fields that differ from those of `tiny_config`; None removes a field.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    # Attention alone.
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {}, "gemma": {}, "gemma2": {},
    "gemma3_text": {},
    "gemma4_text": {"final_logit_softcapping": 5.0, "vocab_size_per_layer_input": "V"},
    "gemma3n_text": {
        "vocab_size_per_layer_input": "V", "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0], "laurel_rank": 4,
    },
    "vaultgemma": {}, "nanochat": {"final_logit_softcapping": 5.0}, "phi": {}, "phi3": {},
    "olmo": {}, "olmo2": {}, "olmo3": {}, "stablelm": {}, "starcoder2": {}, "smollm3": {},
    "exaone4": {}, "glm": {}, "glm4": {}, "helium": {}, "ernie4_5": {}, "seed_oss": {},
    "cohere": {"logit_scale": 0.0625}, "cohere2": {"logit_scale": 0.0625},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 2.0},
    "hyperclovax": {"logits_scaling": 2.0}, "minicpm3": {**_LATENT, "dim_model_base": 16},
    "gpt_neox": {"num_key_value_heads": None, "head_dim": None},
    "gpt2": {**_GPT, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gptj": {**_GPT, "rotary_dim": 8},
    "gpt_neo": {
        "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gpt_bigcode": _GPT,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": _SIZE}, "bloom": {"n_layer": 2, "n_head": 2},
    "falcon": {"head_dim": None},
    "mpt": {"d_model": _SIZE, "n_heads": 2, "n_layers": 2, "max_seq_len": _LIMIT},
    # Mixtures of experts.
    "mixtral": _LOCAL, "qwen2_moe": {**_MOE, "shared_expert_intermediate_size": 16},
    "qwen3_moe": _MOE, "olmoe": _MOE, "granitemoe": {**_LOCAL, "logits_scaling": 8.0},
    "phimoe": _LOCAL, "gpt_oss": _LOCAL,
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 64},
    "deepseek_v3": {
        **_LATENT, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "moe_intermediate_size": 16, "head_dim": None,
    },
    "glm4_moe": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    },
    # Recurrent layers alone.
    "mamba": {"state_size": 8}, "falcon_mamba": {"state_size": 8},
    "mamba2": {
        "state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 1, "expand": 2,
        "chunk_size": 8,
    },
    "rwkv": {"attention_hidden_size": _SIZE, "context_length": _LIMIT},
    # Recurrent and attention layers.
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1,
        "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4,
    },
    "bamba": {"attn_layer_indices": [1], **_MAMBA},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64, "lm_head_multiplier": 0.25},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": {**_LINEAR, **_MOE, "shared_expert_intermediate_size": 16},
    "qwen3_5_text": _LINEAR,
    "granitemoehybrid": {
        **_MAMBA, **_LOCAL, "layer_types": ["mamba", "attention"], "logits_scaling": 8.0,
        "shared_intermediate_size": 32,
    },
    "zamba2": {
        "n_mamba_heads": 4, "mamba_d_state": 8, "mamba_ngroups": 1, "chunk_size": 8,
        "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "use_mem_rope": True,
        "num_key_value_heads": 2, "head_dim": None,
    },
    "nemotron_h": {
        "hybrid_override_pattern": "M*", "mamba_num_heads": 4, "mamba_head_dim": 16,
        "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8,
    },
    "minimax": {
        **_LOCAL, "layer_types": ["linear_attention", "full_attention"], "block_size": 8,
    },
    "recurrent_gemma": {
        "lru_width": _SIZE, "block_types": ["recurrent", "attention"],
        "attention_window_size": 64, "logits_soft_cap": 5.0,
    },
}


def tiny_config(name: str, vocabulary: int, **changed: Any) -> Any:
    """The configuration of a model of two layers and width 32."""
    fields: dict[str, Any] = {
        "hidden_size": _SIZE, "intermediate_size": 2 * _SIZE, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "max_position_embeddings": _LIMIT, "attention_dropout": 0.0,
        "vocab_size": vocabulary, **_SPECIAL, **ARCHITECTURES[name], **changed,
    }
    fields = {
        key: vocabulary if value == "V" else value for key, value in fields.items()
        if value is not None
    }
    return AutoConfig.for_model(name, **fields)


def tiny_model(name: str, vocabulary: int, *, seed: int = 0, **changed: Any) -> Any:
    """A random causal language model in which every layer affects the output.

    Weights are larger than the library's, so that a layer with wrong inputs changes the output by
    more than rounding does.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(name, vocabulary, **changed)).float()
    for path, parameter in model.named_parameters():
        if parameter.dim() > 1 and "conv" not in path:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def save_tiny(folder: Path, name: str, *, seed: int = 0, **changed: Any) -> Path:
    """Save a `tiny_model` with a character tokenizer as an ordinary Hugging Face folder."""
    tokenizer = character_tokenizer()
    tiny_model(name, len(tokenizer), seed=seed, **changed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


