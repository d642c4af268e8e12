"""Fine-tuning of a policy: tokenizers without a padding token, types, the type that is saved."""

import torch
from datasets import Dataset
from safetensors.torch import load_file

from rewardsteer.training.policy import PolicyConfig, train_policy
from tests.fakes import character_tokenizer, tiny_causal_lm


def test_a_narrow_base_without_padding_token(tmp_path):
    tokenizer = character_tokenizer()
    model = tiny_causal_lm(vocab_size=len(tokenizer)).bfloat16()
    model.save_pretrained(tmp_path / "base")
    tokenizer.pad_token = None
    rows = Dataset.from_list([
        {"prompt_ids": [5, 6], "label_ids": [7, 8, 9]}, {"prompt_ids": [5], "label_ids": [7]},
    ])
    config = PolicyConfig.model_validate({
        "base_model": str(tmp_path / "base"), "optimiser": {"learning_rate": 5e-6, "max_steps": 2},
        "log": {"progress": False, "echo": False},
    })
    assert config.dtype == "float32"
    folder = train_policy(config, tokenizer, rows, tmp_path / "out")
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    weights = load_file(folder / "model.safetensors")
    assert {one.dtype for one in weights.values()} == {torch.bfloat16}
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
