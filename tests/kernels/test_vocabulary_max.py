"""The best next token without the logits against the plain maximum over all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsteer.kernels.vocabulary_max import gather_products, vocabulary_argmax
from rewardsteer.models.heads.vocabulary import VocabularyHead


def draw(positions, size, vocabulary, *, seed=0, dtype=torch.float64, bias=True):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(positions, size), (vocabulary, size)] + ([(vocabulary,)] if bias else [])
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@settings(max_examples=60, deadline=None)
@given(
    positions=st.integers(0, 9), size=st.integers(1, 7), vocabulary=st.integers(1, 40),
    chunk=st.integers(1, 45), seed=st.integers(0, 999), bias=st.booleans(),
)
def test_argmax_equals_the_plain_one(positions, size, vocabulary, chunk, seed, bias):
    hidden, weight, *rest = draw(positions, size, vocabulary, seed=seed, bias=bias)
    logits = hidden @ weight.T + (rest[0] if bias else 0)
    found = vocabulary_argmax(hidden, weight, *rest, chunk=chunk)
    assert torch.equal(found, logits.argmax(dim=1))


def test_the_first_of_equals():
    weight = torch.tensor([[1.0], [2.0], [2.0], [2.0]])
    for chunk in (1, 2, 3, 4):
        assert vocabulary_argmax(torch.ones(3, 1), weight, chunk=chunk).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("dtype", "exact"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
@pytest.mark.parametrize("bias", [False, True])
def test_value_and_gradients_are_those_of_the_maximum(dtype, exact, bias):
    inputs = draw(50, 16, 333, dtype=dtype, bias=bias)
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in inputs] for _ in range(2))
    layer = torch.nn.Linear(16, 333, bias=bias, dtype=dtype)
    layer.weight = torch.nn.Parameter(ours[1])
    if bias:
        layer.bias = torch.nn.Parameter(ours[2])
    fast = VocabularyHead(layer).best_next_token(ours[0])
    plain = (theirs[0] @ theirs[1].T + (theirs[2] if bias else 0)).max(dim=1).values
    torch.testing.assert_close(fast, plain, atol=exact, rtol=exact)
    fast.square().sum().backward()
    plain.square().sum().backward()
    gradients = [ours[0].grad, layer.weight.grad] + ([layer.bias.grad] if bias else [])
    for gradient, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(gradient, other.grad, atol=10 * exact, rtol=exact)


def test_gradcheck():
    hidden, weight, bias = (tensor.requires_grad_() for tensor in draw(5, 3, 11))

    def best(hidden, weight, bias):
        place = vocabulary_argmax(hidden, weight, bias, chunk=4)
        return gather_products(hidden, weight, place, bias)

    assert torch.autograd.gradcheck(best, (hidden, weight, bias))


def test_bfloat16_head_picks_its_own_best():
    hidden, weight = draw(20, 8, 100, dtype=torch.bfloat16, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        place = vocabulary_argmax(hidden.float(), weight)
        values = gather_products(hidden.float(), weight, place)
    assert values.dtype == torch.float32
    assert torch.equal(place, (hidden @ weight.T).argmax(dim=1))


def test_no_logits_are_held():
    """No tensor made on the way has positions × vocabulary numbers."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            result = function(*arguments, **(options or {}))
            for one in result if isinstance(result, tuple) else (result,):
                if isinstance(one, torch.Tensor) and function is not torch.ops.aten.t.default:
                    largest = max(largest, one.numel())
            return result

    hidden, weight = draw(64, 4, 5000, dtype=torch.float32, bias=False)
    with Watch():
        vocabulary_argmax(hidden, weight, chunk=500)
    assert largest <= max(64 * 500, weight.numel())
