"""What is worked out once per geometry serves every call after it, and no call writes to another's."""

import pytest
import torch

from impls import boundary, kernel_masked, masked, partial, window_masked
from impls._shared.convolution import convolve

CROSS = torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]])


def _explicit(size):
    x, weight = torch.randn(1, 2, size, size), torch.randn(3, 3, 4, 2, 3, 3)
    options = {"method": "explicit", "implementation": "gathered_border"}
    return lambda: boundary.functional(x, weight, **options)


def _cross(size):
    x, weight = torch.randn(1, 16, size, size), torch.randn(16, 16, 3, 3)
    options = {"kernel_mask": CROSS, "padding": 1, "implementation": "tap_products"}
    return lambda: kernel_masked.functional(x, weight, **options)


def _of_pair(form, groups):
    def made(size):
        x, weight = torch.randn(1, 16, size, size), torch.randn(16, 16 // groups, 3, 3)
        mask = (torch.rand(x.shape) < 0.5).to(x.dtype)
        return lambda: form(x, weight, None, mask, padding=1, groups=groups).output

    return made


PAIRS = [
    _of_pair(form, groups) for form in (partial.functional, masked.functional) for groups in (1, 16)
]


@pytest.mark.parametrize("made", [_explicit, _cross, *PAIRS])
def test_a_geometry_met_under_another_default_device_is_right_there_and_afterwards(made):
    call = made(21)  # a size of this test alone
    with torch.device("meta"):
        first = call()
    assert torch.equal(call(), first)


@pytest.mark.parametrize("made", PAIRS)
def test_what_inference_mode_kept_serves_training(made):
    call = made(23)  # a size of this test alone
    with torch.inference_mode():
        first = call()
    assert torch.equal(call(), first)


def test_the_updated_mask_is_the_callers_to_write_to():
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(6, 4, 3, 3)
    mask = torch.ones(1, 4, 9, 9)
    first = partial.functional(x, weight, None, mask, padding=1)
    expected = first.output.clone()
    first.mask.zero_()
    assert torch.equal(partial.functional(x, weight, None, mask, padding=1).output, expected)
    assert mask.all()


def test_a_weight_with_channels_last_has_its_gradient():
    x = torch.randn(1, 16, 32, 32)
    weight = torch.randn(16, 16, 3, 3)
    found = []
    for form in (weight, weight.to(memory_format=torch.channels_last)):
        form = form.clone(memory_format=torch.preserve_format).requires_grad_()
        y = kernel_masked.functional(
            x, form, kernel_mask=CROSS, padding=1, implementation="tap_products"
        )
        found += torch.autograd.grad(y.square().sum(), form)
    torch.testing.assert_close(*found)


class _Convolved(torch.nn.Module):
    def forward(self, x, weight):
        ones = (1, 1)
        return convolve(x, weight, stride=ones, padding=ones, dilation=ones, groups=1)


def test_a_size_that_is_traced_stays_open_with_channels_last():
    x = torch.randn(2, 3, 9, 8).to(memory_format=torch.channels_last)
    sides = {2: torch.export.Dim("height", min=4, max=64), 3: torch.export.Dim("width", min=4)}
    weight = torch.randn(5, 3, 3, 3)
    program = torch.export.export(_Convolved(), (x, weight), dynamic_shapes=(sides, None))
    other = torch.randn(2, 3, 12, 7).to(memory_format=torch.channels_last)
    torch.testing.assert_close(program.module()(other, weight), _Convolved()(other, weight))


def test_the_gradient_of_the_output_is_not_written_to():
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    weight, bias = torch.randn(4, 1, 1, 1), torch.randn(4, requires_grad=True)
    mask = torch.ones(1, 2, 1, 1, 8, 8)
    y = window_masked.functional(
        x, weight, bias, mask, groups=2, implementation="output_blocks"
    )  # fmt: skip
    dy = torch.randn_like(y)
    before = dy.clone()
    _, of_bias = torch.autograd.grad(y, (x, bias), dy)
    assert torch.equal(dy, before)
    torch.testing.assert_close(of_bias, before.sum((0, 2, 3)))
