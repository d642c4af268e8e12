"""A reward model kept as an adapter, on the policy's own weights."""

import pytest
import torch
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

vllm = pytest.importorskip("vllm", reason="vLLM is not installed; run 'make test-vllm'")

from rewardsteer.decoding.engines.vllm_settings import guided_by  # noqa: E402
from rewardsteer.decoding.engines.vllm_start import start  # noqa: E402
from rewardsteer.errors import ConfigError  # noqa: E402
from tests.models.test_shared_backbone import keep_adapter  # noqa: E402
from tests.vllm.models import (  # noqa: E402
    LENGTH,
    WEIGHTS,
    expected,
    make_requests,
    save_models,
)

NEW = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = save_models(tmp_path_factory.mktemp("models"))
    keep_adapter(root / "policy", root / "adapter", "vocabulary")
    keep_adapter(root / "base", root / "stranger", "vocabulary")
    tokenizer = AutoTokenizer.from_pretrained(root / "policy")
    torch.manual_seed(1)
    gemma = Gemma3ForCausalLM(Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=32, sliding_window=32,
        layer_types=["sliding_attention", "full_attention"], max_position_embeddings=512,
        bos_token_id=0, eos_token_id=0, pad_token_id=2,
    ))
    for name, weight in gemma.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.05 if "embed" in name else 0.5)
    (root / "gemma").mkdir()
    gemma.save_pretrained(root / "gemma" / "policy")
    tokenizer.save_pretrained(root / "gemma" / "policy")
    keep_adapter(root / "gemma" / "policy", root / "gemma" / "adapter", "vocabulary")
    (root / "gemma" / "farma").symlink_to(root / "farma")
    return root


def begin(root, *names):
    return start(
        str(root / "policy"), dtype="float32", enforce_eager=True, max_model_len=LENGTH,
        distributed_executor_backend="uni", max_num_seqs=16, max_num_batched_tokens=80,
        num_gpu_blocks_override=64, hf_overrides=guided_by([root / name for name in names]),
    )


@pytest.mark.parametrize("policy", ["", "gemma"])
def test_it_is_the_model_that_was_trained(root, policy):
    """Beside another reward model, token for token; and it takes no weights but its own. vLLM's
    class of Gemma 3 has no output layer but the embedding, and its windows slide."""
    root = root / policy
    llm, requests = begin(root, "adapter", "farma"), make_requests(16)
    for name in ("adapter", "farma"):
        extras = [{"reward_weight": WEIGHTS[n % 4], "reward_model": name} for n in range(16)]
        outputs = llm.generate(
            [{"prompt_token_ids": one.prompt_ids} for one in requests],
            [vllm.SamplingParams(temperature=0, max_tokens=NEW, extra_args=e) for e in extras],
            use_tqdm=False,
        )
        right = {weight: expected(root, name, requests, weight, NEW) for weight in WEIGHTS}
        for number, (request, output) in enumerate(zip(requests, outputs, strict=True)):
            found = list(output.outputs[0].token_ids)
            assert found == right[WEIGHTS[number % 4]][request.id], (name, number)
        assert sum(right[1.5][one.id] != right[0.0][one.id] for one in requests) > 8
    [own] = llm.apply_model(_own_parameters)
    assert "lm_head.weight" in own
    assert all("lora_" in name or name == "lm_head.weight" for name in own), own


def _own_parameters(model):
    policy = {one.data_ptr() for one in model.policy.parameters()}
    return [
        name for name, one in model.parts[0].model.named_parameters()
        if one.data_ptr() not in policy
    ]


def test_another_policys_adapter_is_refused(root):
    with pytest.raises(ConfigError, match="is another model"):
        begin(root, "stranger")


