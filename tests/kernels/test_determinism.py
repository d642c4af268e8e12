"""Gradients are the same to the bit from run to run, on several threads too.

Where positions share a state or a token, their gradients are summed; an indexing operator's sum has
another order each time once several threads take part.
"""

import pytest
import torch

from rewardsteer.kernels.vocabulary_max import gather_products
from rewardsteer.tensors import TokenStates

WIDTH, POSITIONS = 96, 4000


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def gradient(tensor, function, weights):
    tensor.grad = None
    (function() * weights).sum().backward()
    return tensor.grad.clone()


def check(tensor, function, weights, plain):
    found = gradient(tensor, function, weights)
    for _ in range(30):
        assert torch.equal(gradient(tensor, function, weights), found)
    torch.testing.assert_close(found, gradient(tensor, plain, weights), rtol=1e-4, atol=1e-4)


def test_states_that_positions_share(two_threads):
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(2000, WIDTH, generator=generator, requires_grad=True)
    index = torch.randint(0, 300, (4, POSITIONS // 4), generator=generator)
    states = TokenStates(flat, index)
    rows, columns = torch.ones_like(index).nonzero(as_tuple=True)
    weights = torch.randn(POSITIONS, WIDTH, generator=generator)
    plain = lambda: flat[index.flatten()]  # noqa: E731
    check(flat, lambda: states.at(rows, columns), weights, plain)
    check(flat, lambda: states.marked(torch.ones_like(index).bool()), weights, plain)


@pytest.mark.parametrize("bias", [False, True])
def test_tokens_that_positions_share(two_threads, bias):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, WIDTH, generator=generator, requires_grad=True)
    shift = torch.randn(50, generator=generator, requires_grad=True) if bias else None
    tokens = torch.randint(0, 50, (POSITIONS,), generator=generator)
    hidden = torch.randn(POSITIONS, WIDTH, generator=generator)
    weights = torch.randn(POSITIONS, generator=generator)

    def plain():
        products = (hidden * weight[tokens]).sum(-1)
        return products if shift is None else products + shift[tokens]

    check(weight, lambda: gather_products(hidden, weight, tokens, shift), weights, plain)
    if shift is not None:
        check(shift, lambda: gather_products(hidden, weight, tokens, shift), weights, plain)
