"""Sums of taps per class of border outputs are what tiling gives, with every gradient."""

import pytest
import torch

from impls import tile_concat

# size, kernel, stride, padding, dilation: longer than a few outputs along one axis, or both, or none
GEOMETRIES = [
    ((12, 11), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((13, 5), (7, 2), (2, 1), (3, 1), (1, 1)),
    ((6, 12), (3, 4), (1, 2), (5, 0), (2, 1)),
    ((5, 4), (3, 3), (1, 1), (2, 1), (1, 1)),
    # no window holds the whole kernel; one tap, and outputs that see nothing
    ((4, 16), (3, 3), (1, 1), (4, 1), (4, 1)),
    ((2, 16), (7, 3), (1, 1), (3, 1), (1, 1)),
    ((2, 2), (7, 7), (1, 1), (3, 3), (1, 1)),
    ((3, 4), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((1, 3), (1, 1), (3, 1), (1, 0), (1, 1)),
]
PRESENT = [(True, True, True, True), (True, True, False, True), (True, False, False, True)]


def _operands(size, kernel, present):
    channels, sizes = (3, 2, 4, 5), (size, size[:1], size[1:], ())
    shapes = [(2, c, *own) for c, own in zip(channels, sizes, strict=True)]
    x = [
        torch.randint(-3, 4, shape).float() if is_there else None
        for shape, is_there in zip(shapes, present, strict=True)
    ]
    count = sum(c for c, is_there in zip(channels, present, strict=True) if is_there)
    return x, torch.randint(-3, 4, (6, count, *kernel)).float(), torch.randint(-3, 4, (6,)).float()


def _both(x, weight, bias, geometry, dy=None):
    stride, padding, dilation = geometry
    for name in ("short_tiles", "concatenated"):
        given = [None if t is None else t.clone().requires_grad_() for t in (*x, weight, bias)]
        y = tile_concat.functional(
            given[:4], *given[4:], size=None, stride=stride, padding=padding, dilation=dilation,
            implementation=name,
        )  # fmt: skip
        dy = torch.arange(y.numel()).view(y.shape).fmod(5).float() - 2 if dy is None else dy
        before = dy.clone()
        gradients = torch.autograd.grad(y, [t for t in given if t is not None], dy)
        assert torch.equal(dy, before)
        yield y.detach(), *gradients


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_outputs_and_gradients_are_those_of_tiles(geometry, present):
    size, kernel, *rest = geometry
    ours, theirs = _both(*_operands(size, kernel, present), rest)
    for got, expected in zip(ours, theirs, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_taps_outside_the_image_see_no_infinity(geometry):
    size, kernel, *rest = geometry
    x, weight, bias = _operands(size, kernel, PRESENT[0])
    for source in x[1:]:
        source.view(-1)[0] = torch.inf
    (ours, *_), (theirs, *_) = _both(x, weight.abs() + 1, bias, rest)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("asked", range(6))
def test_one_gradient_alone_is_computed(asked):
    size, kernel, *rest = GEOMETRIES[0]
    x, weight, bias = _operands(size, kernel, PRESENT[0])
    found = []
    for name in ("short_tiles", "concatenated"):
        given = [t.clone() for t in (*x, weight, bias)]
        given[asked].requires_grad_()
        y = tile_concat.functional(
            given[:4], *given[4:], stride=rest[0], padding=rest[1], dilation=rest[2],
            implementation=name,
        )  # fmt: skip
        found.append(torch.autograd.grad(y.square().sum(), given[asked])[0])
    assert torch.equal(*found)
