"""Heads compute in float32, whatever the weights' type and autocast are."""

import random

import pytest
import torch

from rewardsteer.kernels import precision
from rewardsteer.kernels.precision import wide_linear
from rewardsteer.kernels.vocabulary_soft import vocabulary_logsumexp
from rewardsteer.models.checkpoint import CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.heads.layers import WideLinear
from rewardsteer.models.heads.projection import RewardProjection
from rewardsteer.models.heads.vocabulary import VocabularyHead
from rewardsteer.models.kinds import load_scorer
from rewardsteer.models.reward_model import RewardModel
from tests.fakes import character_tokenizer, spread_weights, tiny_causal_lm

HEADS = [
    HeadConfig(), HeadConfig(layers="mlp"), HeadConfig(kind="vocabulary"),
]


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16])
def base(request, tmp_path_factory):
    """A base model in a narrow type, with weights of usual size."""
    folder, tokenizer = tmp_path_factory.mktemp("base"), character_tokenizer()
    torch.manual_seed(0)
    model = tiny_causal_lm("llama", vocab_size=len(tokenizer), hidden=64)
    spread_weights(model, 0.05)
    model.to(request.param).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head.kind}-{head.layers}")
def test_different_texts_get_different_rewards(base, head, tmp_path):
    draw = random.Random(0)
    texts = ["".join(draw.choice("abcdefghij klmno") for _ in range(30)) for _ in range(400)]
    torch.manual_seed(3)
    model = RewardModel.from_base(base, head)
    tokenizer = character_tokenizer()
    model.save_pretrained(tmp_path / "rm", tokenizer, CheckpointCard(head=head))
    scorer = load_scorer(tmp_path / "rm", device="cpu")
    assert scorer.reward_model.base.dtype in (torch.bfloat16, torch.float16)
    rewards = scorer.score(["q"] * 400, texts)
    assert len(set(rewards.tolist())) == 400


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_layers_compute_in_float32(narrow, autocast):
    torch.manual_seed(0)
    hidden = torch.randn(5, 32, dtype=narrow)
    layer = WideLinear(32, 7).to(narrow)
    expected = torch.nn.functional.linear(hidden.float(), layer.weight.float(), layer.bias.float())
    with torch.autocast("cpu", narrow, enabled=autocast):
        found = layer(hidden)
        every = VocabularyHead(RewardProjection(32, 50, bias=False).to(narrow)).next_token(hidden)
    assert torch.equal(found, expected)
    assert every.dtype == torch.float32
    found.sum().backward()
    assert layer.weight.grad.dtype == narrow


def test_a_narrow_weight_is_widened_in_chunks(monkeypatch):
    monkeypatch.setattr(precision, "_CHUNK", 32 * 3)
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 5, 32), torch.randn(50, 32).bfloat16()
    bias = torch.randn(50)
    with torch.no_grad():
        found = wide_linear(hidden.bfloat16(), weight, bias)
        expected = hidden.bfloat16().float() @ weight.float().T + bias
    torch.testing.assert_close(found, expected)


def test_log_probabilities_are_never_above_zero_under_autocast():
    """The reward of a token and the soft maximum that is subtracted from it round alike."""
    torch.manual_seed(0)
    head = VocabularyHead(RewardProjection(64, 300, bias=False))
    with torch.no_grad():
        head.projection.weight.mul_(30)
        hidden = torch.randn(500, 64)
        tokens = head.next_token(hidden).argmax(-1)
        with torch.autocast("cpu", torch.bfloat16):
            found = head.rewards_of(hidden, tokens) - head.soft_next_token(hidden, 1.0)
        exact = head.next_token(hidden).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    found -= torch.tensor(300.0).log()
    assert found.max() < 1e-4
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)


def test_the_soft_maximum_of_bfloat16_weights_is_made_in_float32():
    torch.manual_seed(0)
    hidden, weight = torch.randn(20, 64).bfloat16(), torch.randn(300, 64).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = vocabulary_logsumexp(hidden, weight, temperature=1.0)
    exact = (hidden.float() @ weight.float().T).logsumexp(-1) - torch.tensor(300.0).log()
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)
