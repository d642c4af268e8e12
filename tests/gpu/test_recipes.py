"""Every shipped recipe makes two updates of a model of the shape of Llama-3.2-1B."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rewardsteer.configuration import load_config
from rewardsteer.models.checkpoint import load_tokenizer
from rewardsteer.training.config import TrainConfig
from rewardsteer.training.recipes import list_recipes, read_recipe
from rewardsteer.training.run import train
from tests.training.engines import make_world

SHAPE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "tie_word_embeddings": True, "max_position_embeddings": 8192,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    size = len(load_tokenizer(folder / "base"))
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=size, **SHAPE)).bfloat16().save_pretrained(
        folder / "base"
    )
    return folder


@pytest.mark.parametrize("name", list_recipes())
def test_two_updates(world, name, tmp_path):
    config = load_config(TrainConfig, read_recipe(name), [
        f"base_model={world / 'base'}", f"prepared={world / 'data'}", "optimiser.max_steps=2",
        "optimiser.per_device_train_batch_size=2", "optimiser.gradient_accumulation_steps=1",
        "log.progress=false",
        "log.eval_rows=4",
    ])
    config = config.model_copy(update={"data": None})
    folder = train(config, tmp_path / "run")
    assert (folder / "model.safetensors").exists()
