"""Maxima and sums over large vocabularies on a CUDA device, against plain logits."""

import pytest
import torch

from rewardsteer.decoding.config import DecodingConfig
from rewardsteer.decoding.sampling import pick, row_generator
from rewardsteer.kernels.policy_backups import policy_mean, policy_top_k
from rewardsteer.kernels.vocabulary_max import gather_products, vocabulary_argmax
from rewardsteer.kernels.vocabulary_soft import OutputLayer, vocabulary_logsumexp
from rewardsteer.tensors import PairBatch
from rewardsteer.training.accumulator import MetricAccumulator

VOCABULARY, WIDTH = 151_936, 64


def layer(positions, seed, dtype=torch.float32):
    generator = torch.Generator("cuda").manual_seed(seed)
    hidden, weight = (
        torch.randn(rows, WIDTH, generator=generator, device="cuda").to(dtype)
        for rows in (positions, VOCABULARY)
    )
    return hidden.requires_grad_(), (weight / 8).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_the_logits(dtype):
    (hidden, weight), (base, own) = layer(50, 0, dtype), layer(50, 1, dtype)
    logits = hidden.float() @ weight.float().T
    law = (base.float() @ own.float().T).detach().softmax(-1)
    policy = OutputLayer(base.detach(), own.detach())
    best = vocabulary_argmax(hidden, weight)
    pairs = {
        "max": (gather_products(hidden, weight, best), logits.amax(1)),
        "soft": (
            vocabulary_logsumexp(hidden, weight, temperature=0.7, base=policy),
            0.7 * (law.log() + logits / 0.7).logsumexp(1),
        ),
        "mean": (policy_mean(hidden, weight, None, policy), (law * logits).sum(1)),
        "top": (
            policy_top_k(hidden, weight, None, policy, 5),
            logits.gather(1, law.topk(5).indices).amax(1),
        ),
    }
    for name, (found, expected) in pairs.items():
        torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-2, msg=name)
        ours, theirs = (
            torch.autograd.grad(one.sum(), [hidden, weight], retain_graph=True)
            for one in (found, expected)
        )
        torch.testing.assert_close(ours, theirs, atol=3e-2, rtol=3e-2, msg=name)


def test_more_products_than_32_bits_count():
    hidden, weight = layer(2**31 // VOCABULARY + 200, 2)
    with torch.no_grad():
        found = vocabulary_argmax(hidden, weight)
        for rows in (slice(0, 20), slice(-20, None)):
            assert torch.equal(found[rows], (hidden[rows] @ weight.T).argmax(1))


def test_draws_are_those_of_the_cpu():
    scores = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0)) * 3
    for changes in ({"top_k": 0}, {"top_k": 40, "top_p": 0.9}, {"min_p": 0.05, "top_k": 0}):
        config = DecodingConfig(mode="sample", temperature=0.8, **changes)
        found, expected = (
            pick(scores.to(device), [row_generator(0, str(n), 0) for n in range(64)], config)
            for device in ("cuda", "cpu")
        )
        assert sum(one == other for one, other in zip(found, expected, strict=True)) >= 63


def test_a_training_step_counts_without_waiting():
    batch = PairBatch(*(torch.ones(4, 6, device="cuda") for _ in range(4)), torch.zeros(2))
    interval = MetricAccumulator(torch.device("cuda"))
    values = {"accuracy": torch.ones((), device="cuda")}
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            interval.add(batch, values, {}, 0.5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert interval.state()["sums"] == {"accuracy": 4.0}
