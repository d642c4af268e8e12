"""The best next token without the logits against the plain maximum over all of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode

from rewardsteer.kernels.vocabulary_max import gather_products, pieces, vocabulary_argmax

DTYPES = [(torch.float64, 1e-8), (torch.float32, 1e-5)]


def draw(positions, size, vocabulary, *, seed=0, dtype=torch.float64, bias=True):
    """States, weight and, unless left out, bias."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(positions, size), (vocabulary, size)] + ([(vocabulary,)] if bias else [])
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for shape in shapes]


def plain_products(hidden, weight, bias=None):
    """All logits ``[N, V]``."""
    return hidden @ weight.T + (0 if bias is None else bias)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor made, inside our own operators too."""

    numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.namespace == "rewardsteer":
            # The body in place of the operator, which would hide what it does.
            with self:
                return OPDEFS[function.name().removesuffix(".default")]._init_fn(*arguments)
        result = function(*arguments, **(options or {}))
        for one in result if isinstance(result, tuple) else (result,):
            # Views make nothing.
            if isinstance(one, torch.Tensor) and not function.is_view:
                self.numbers = max(self.numbers, one.numel())
        return result


@settings(max_examples=80, deadline=None)
@given(
    positions=st.integers(0, 9), size=st.integers(1, 7), vocabulary=st.integers(1, 40),
    numbers=st.integers(1, 300), seed=st.integers(0, 999), bias=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_argmax_equals_the_plain_one(positions, size, vocabulary, numbers, seed, bias, dtype):
    inputs = draw(positions, size, vocabulary, seed=seed, bias=bias, dtype=dtype)
    found = vocabulary_argmax(*inputs, numbers=numbers)
    assert torch.equal(found, plain_products(*inputs).argmax(dim=1))


@settings(max_examples=40, deadline=None)
@given(
    positions=st.integers(0, 9), vocabulary=st.integers(1, 40), numbers=st.integers(1, 300),
    seed=st.integers(0, 999), bias=st.booleans(), autocast=st.booleans(),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_bfloat16_finds_one_of_the_best(
    positions, vocabulary, numbers, seed, bias, autocast, dtype
):
    """Which of two nearly equal products is found depends on how they were rounded; the value read
    there does not."""
    hidden, *layer = draw(positions, 8, vocabulary, seed=seed, bias=bias, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        place = vocabulary_argmax(hidden, *layer, numbers=numbers)
        values = gather_products(hidden, layer[0], place, *layer[1:])
    assert values.dtype == torch.float32
    exact = plain_products(*(tensor.double() for tensor in (hidden, *layer)))
    taken = exact.gather(1, place[:, None])[:, 0]
    torch.testing.assert_close(values.double(), taken, atol=1e-5, rtol=1e-5)
    # A bfloat16 product is off by at most 2⁻⁸ of its size; two of them decide.
    best = exact.max(dim=1).values
    assert ((best - values) <= 2**-6 * exact.abs().amax(dim=1).clamp(min=1)).all()


@settings(max_examples=60, deadline=None)
@given(
    positions=st.integers(0, 3000), vocabulary=st.integers(1, 5000),
    numbers=st.none() | st.integers(1, 1 << 22),
)
def test_pieces_cover_everything_once_and_stay_small(positions, vocabulary, numbers):
    blocks, chunks = pieces(torch.empty(positions, 1), torch.empty(vocabulary, 1), numbers)
    for cuts, length in ((blocks, positions), (chunks, vocabulary)):
        assert [place for cut in cuts for place in range(length)[cut]] == list(range(length))
    if blocks:
        limit = numbers or 1 << 21
        assert len(range(positions)[blocks[0]]) * len(range(vocabulary)[chunks[0]]) <= limit


def test_the_first_of_equals():
    weight = torch.tensor([[1.0], [2.0], [2.0], [2.0]])
    for numbers in (1, 2, 6, 9, 12):
        assert vocabulary_argmax(torch.ones(3, 1), weight, numbers=numbers).tolist() == [1, 1, 1]


@pytest.mark.parametrize("broken", [0, 3, 6])
def test_a_broken_row_is_not_passed_over(broken):
    hidden, weight = draw(2, 3, 7, bias=False)
    weight[broken] = math.nan
    assert vocabulary_argmax(hidden, weight, numbers=4).tolist() == [broken] * 2


@pytest.mark.parametrize(("dtype", "exact"), DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("positions", [0, 1, 50])
def test_value_and_gradients_are_those_of_the_maximum(dtype, exact, bias, positions):
    inputs = draw(positions, 16, 333, dtype=dtype, bias=bias)
    ours, theirs = ([tensor.clone().requires_grad_() for tensor in inputs] for _ in range(2))
    place = vocabulary_argmax(*ours, numbers=700)
    fast = gather_products(ours[0], ours[1], place, *ours[2:])
    plain = plain_products(*theirs).max(dim=1).values
    torch.testing.assert_close(fast, plain, atol=exact, rtol=exact)
    fast.square().sum().backward()
    plain.square().sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=10 * exact, rtol=exact)


def test_gradcheck():
    inputs = [tensor.requires_grad_() for tensor in draw(5, 3, 11)]

    def best(hidden, weight, bias):
        place = vocabulary_argmax(hidden, weight, bias, numbers=12)
        return gather_products(hidden, weight, place, bias)

    assert torch.autograd.gradcheck(best, inputs)
    tokens = torch.tensor([[1, 1, 4], [0, 1, 4]])
    hidden = draw(6, 3, 1)[0].view(2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *given: gather_products(given[0], given[1], tokens, given[2]),
        (hidden, *inputs[1:]),
    )


def test_bfloat16_gradient_of_a_token_that_is_best_everywhere():
    """Added up in bfloat16 one by one, 4,096 parts of one row stop counting after some hundred."""
    hidden = draw(4096, 4, 1)[0].abs().bfloat16()
    weight = torch.zeros(3, 4, dtype=torch.bfloat16, requires_grad=True)
    gather_products(hidden, weight, torch.ones(4096, dtype=torch.long)).sum().backward()
    assert weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(
        weight.grad[1].double(), hidden.double().sum(0), rtol=2**-8, atol=0.0
    )
    assert not weight.grad[[0, 2]].any()


def test_no_logits_are_held():
    """No tensor made on the way has positions × vocabulary numbers."""
    inputs = [tensor.requires_grad_() for tensor in draw(64, 4, 5000, dtype=torch.float32)]
    with Largest() as largest:
        place = vocabulary_argmax(*inputs, numbers=64 * 50)
        gather_products(inputs[0], inputs[1], place, inputs[2]).sum().backward()
    assert largest.numbers == inputs[1].numel()


@pytest.mark.parametrize("positions", [0, 3])
def test_operator_keeps_its_promises(positions):
    """Schema, shapes on fake tensors and differentiation, as torch.compile relies on them."""
    hidden, weight, bias = draw(positions, 4, 9)
    for given_bias in (None, bias):
        torch.library.opcheck(
            torch.ops.rewardsteer.vocabulary_argmax.default,
            (hidden, weight, given_bias, torch.float64, 7),
        )
    found = vocabulary_argmax(hidden.to("meta"), weight.to("meta"))
    assert (found.shape, found.dtype) == ((positions,), torch.long)
