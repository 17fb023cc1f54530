"""A convolution of a few outputs is a product of matrices: the same values and derivatives."""

import pytest
import torch
from torch.nn import functional as F

from impls import multi_source
from impls._shared.narrow import convolve_narrow, is_narrow

SHAPES = [
    (1, 7, 1, 1, 1),
    (2, 7, 2, 0, 1),
    (1, 9, 1, 2, 2),
]  # batch, size, stride, padding, dilation


def _operands(batch, size):
    return (
        torch.randint(-4, 5, (batch, 128, size)).float(),
        torch.randint(-4, 5, (128, 128, 3)).float(),
        torch.randint(-4, 5, (128,)).float(),
    )


@pytest.mark.parametrize(("batch", "size", "stride", "padding", "dilation"), SHAPES)
def test_it_is_the_convolution_with_its_gradients(batch, size, stride, padding, dilation):
    operands = _operands(batch, size)
    geometry = ((stride,), (padding,), (dilation,))
    assert is_narrow(*operands[:2], *geometry) == (size < 9)
    found = []
    for form in (convolve_narrow, F.conv1d):
        given = [t.clone().requires_grad_() for t in operands]
        y = form(*given, *geometry)
        dy = torch.arange(y.numel()).view(y.shape).fmod(7) - 3
        found.append((y.detach(), *torch.autograd.grad(y, given, dy.float())))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_a_source_of_few_outputs_takes_it():
    image = torch.randint(-3, 4, (1, 8, 7, 7)).float()
    row, weight, _ = _operands(1, 7)
    taps = torch.randint(-3, 4, (128, 8, 3, 3)).float()
    sources, weights = (image, row, None, None), (taps, weight, None, None)
    got, expected = (
        multi_source.functional(sources, weights, padding=1, implementation=name)
        for name in ("small_first", "one_per_source")
    )
    assert torch.equal(got, expected)
