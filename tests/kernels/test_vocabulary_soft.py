"""The soft best next token against the plain log-sum-exp over all logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.kernels.vocabulary_soft import OutputLayer, vocabulary_logsumexp
from tests.kernels.test_vocabulary_max import DTYPES, Largest, draw, plain_products


def plain(inputs, temperature, base=None):
    """τ · log Σ_v p(v) · exp(r_v / τ), as it is written."""
    rewards = plain_products(*inputs)
    probabilities = torch.full_like(rewards, 1 / rewards.shape[1])
    if base is not None:
        probabilities = plain_products(*base).softmax(dim=1).detach()
    return temperature * (probabilities.log() + rewards / temperature).logsumexp(dim=1)


def policy(positions, vocabulary, *, bias=True, seed=1, dtype=torch.float64):
    """A base policy of another hidden size."""
    return OutputLayer(*draw(positions, 5, vocabulary, seed=seed, bias=bias, dtype=dtype))


@settings(max_examples=80, deadline=None)
@given(
    positions=st.integers(0, 9), vocabulary=st.integers(1, 40), numbers=st.integers(1, 300),
    seed=st.integers(0, 999), bias=st.booleans(), based=st.booleans(),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 30.0]), dtype=st.sampled_from(DTYPES),
)
def test_value_and_gradients(positions, vocabulary, numbers, seed, bias, based, temperature, dtype):
    kind, exact = dtype
    inputs = draw(positions, 6, vocabulary, seed=seed, bias=bias, dtype=kind)
    base = None
    if based:
        base = policy(positions, vocabulary, bias=not bias, seed=seed + 1, dtype=kind)
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in inputs] for _ in range(2))
    fast = vocabulary_logsumexp(*ours, temperature=temperature, base=base, numbers=numbers)
    slow = plain(theirs, temperature, base)
    assert fast.dtype == kind
    torch.testing.assert_close(fast, slow, atol=10 * exact, rtol=exact)
    # Weighted, so that positions cannot be mistaken for one another.
    weights = torch.arange(positions, dtype=kind) - 1.5
    (fast * weights).sum().backward()
    (slow * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        # Divided by a small τ, rounding errors of the products grow.
        loose = 10 * exact * max(1, 1 / temperature)
        torch.testing.assert_close(mine.grad, other.grad, atol=loose, rtol=loose)


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradcheck(bias, based):
    inputs = [tensor.requires_grad_() for tensor in draw(4, 3, 11, bias=bias)]
    base = policy(4, 11) if based else None
    assert torch.autograd.gradcheck(
        lambda *given: vocabulary_logsumexp(*given, temperature=0.6, base=base, numbers=8), inputs
    )


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.bfloat16, False), (torch.bfloat16, True), (torch.float32, True)],
)
@pytest.mark.parametrize("based", [False, True])
def test_bfloat16_sums_in_float32(dtype, autocast, based):
    """Against float64 on the same inputs: 5,000 terms added up in bfloat16 would be off by tens of
    percent; the largest products, about 16, are rounded by 2⁻⁴, which is 3 % of a share."""
    inputs = draw(7, 8, 5000, dtype=dtype)
    base = policy(7, 5000, dtype=dtype) if based else None
    ours = [tensor.clone().requires_grad_() for tensor in inputs]
    theirs = [tensor.double().requires_grad_() for tensor in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        fast = vocabulary_logsumexp(*ours, temperature=2.0, base=base, numbers=7 * 100)
    wide = None if base is None else OutputLayer(*(tensor.double() for tensor in base))
    slow = plain(theirs, 2.0, wide)
    assert fast.dtype == torch.float32
    torch.testing.assert_close(fast.double(), slow, atol=2e-2, rtol=5e-3)
    fast.sum().backward()
    slow.sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad.dtype == dtype
        loose = 4e-2 * other.grad.abs().max().item()
        torch.testing.assert_close(mine.grad.double(), other.grad, atol=loose, rtol=0)


def test_between_mean_and_maximum():
    inputs = draw(6, 4, 50)
    rewards = plain_products(*inputs)
    mean, best = rewards.mean(dim=1), rewards.max(dim=1).values
    values = [vocabulary_logsumexp(*inputs, temperature=t) for t in (1e-3, 0.1, 1.0, 10.0, 1e5)]
    torch.testing.assert_close(values[0], best, atol=1e-3 * math.log(51), rtol=0)
    torch.testing.assert_close(values[-1], mean, atol=1e-3, rtol=0)
    for colder, warmer in zip([best, *values], [*values, mean], strict=True):
        assert (colder >= warmer).all()


def test_a_base_policy_gets_no_gradient_and_may_be_certain():
    inputs = draw(3, 4, 9)
    hidden, weight, _ = policy(3, 9)
    certain = torch.full((9,), -torch.inf, dtype=torch.float64)
    certain[2] = 0.0
    base = OutputLayer(hidden.requires_grad_(), weight.requires_grad_(), certain)
    inputs[0].requires_grad_()
    value = vocabulary_logsumexp(*inputs, temperature=0.3, base=base, numbers=7)
    torch.testing.assert_close(value, plain_products(*inputs)[:, 2])
    value.sum().backward()
    assert hidden.grad is None
    assert weight.grad is None


def test_no_logits_are_held():
    inputs = [tensor.requires_grad_() for tensor in draw(64, 4, 5000, dtype=torch.float32)]
    base = policy(64, 5000, dtype=torch.float32)
    with Largest() as largest:
        value = vocabulary_logsumexp(*inputs, temperature=1.0, base=base, numbers=64 * 50)
        value.sum().backward()
    assert largest.numbers == inputs[1].numel()


@pytest.mark.parametrize("positions", [0, 3])
@pytest.mark.parametrize("based", [False, True])
def test_operators_keep_their_promises(positions, based):
    """Schema, shapes on fake tensors and differentiation, as torch.compile relies on them."""
    inputs = [tensor.requires_grad_() for tensor in draw(positions, 4, 9, dtype=torch.float32)]
    base = policy(positions, 9, dtype=torch.float32) if based else (None, None, None)
    torch.library.opcheck(
        torch.ops.rewardsteer.vocabulary_logsumexp.default, (*inputs, *base, 0.5, torch.float32, 7)
    )
    held = [tensor.detach() for tensor in inputs]
    value, total = torch.ops.rewardsteer.vocabulary_logsumexp(*held, *base, 0.5, torch.float32, 7)
    torch.library.opcheck(
        torch.ops.rewardsteer.vocabulary_logsumexp_backward.default,
        (value, total, *held, *base, 0.5, torch.float32, 7),
    )
    on_meta = vocabulary_logsumexp(*(tensor.to("meta") for tensor in held), temperature=0.5)
    assert (on_meta.shape, on_meta.dtype) == ((positions,), torch.float32)
