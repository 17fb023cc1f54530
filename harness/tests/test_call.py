"""The functional form refuses what cannot be, with argument, value and expectation."""

import pytest
import torch
from torch import nn

from harness.call import call
from harness.case import CaseError
from impls.partial import VARIANT
from impls.partial import functional as partial
from impls.plain import functional as plain

X = torch.zeros(2, 4, 8, 8)
W = torch.zeros(6, 4, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, W[:, :2]), {}, r"weight.shape=\(6, 2, 3, 3\) must be \(6, 4, 3, 3\)"),
        ((X, W), {"groups": 3}, "c_in=4 is not divisible by groups=3"),
        (
            (X, W),
            {"stride": (1, 2, 3)},
            r"stride=\(1, 2, 3\) needs 2 entries, one per spatial axis",
        ),
        ((X, W), {"padding": -1}, r"padding=\(-1, -1\) must be at least 0"),
        ((X, W), {"padding": "sam"}, "padding='sam' must be a number per axis, 'valid' or 'same'"),
        (
            (X, W),
            {"padding": "same", "stride": 2},
            r"padding='same' needs stride 1, not stride=\(2, 2\)",
        ),
        ((X, W), {"padding_mode": "mirror"}, "padding_mode=mirror must be one of zeros, reflect"),
        (
            (X, W),
            {"padding": 9, "padding_mode": "circular"},
            r"in_size=\(8, 8\) must be at least \(9, 9\)",
        ),
        ((X, W), {"epsilon": 1}, "epsilon=1: plain takes no argument 'epsilon'; it takes stride"),
        ((X, W), {"implementation": "fast"}, "implementation='fast' must be one of library"),
        ((X, W), {"implementation": ["fast"]}, r"implementation=\['fast'\] must be one of library"),
        (
            (X, W),
            {"padding_mode": ["zeros"]},
            r"padding_mode=\['zeros'\] must be one of zeros, ref",
        ),
        ((X, W), {"groups": [1]}, r"groups=\[1\] must be a number or a word"),
        ((X[0, 0], W), {}, r"x.shape=\(8, 8\) needs 4 axes: batch, channels and 2 spatial; or 3"),
        ((X, W, torch.zeros(5)), {}, r"bias.shape=\(5,\) must be \(6,\)"),
        (
            (X, torch.zeros(6, 4, 11, 3)),
            {},
            r"spans 11 on spatial axis 0, larger than the padded input 8",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(CaseError, match=message):
        plain(*arguments, **options)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 3, 8, 8), r"mask.shape=\(1, 3, 8, 8\) must be \(2, 4, 8, 8\) or"),
        (torch.full((2, 4, 8, 8), 2.0), r"mask must hold values in \[0, 1\]"),
        (torch.full((2, 4, 8, 8), float("nan")), r"mask must hold values in \[0, 1\]"),
        (torch.full((2, 4, 8, 8), 3), r"mask must hold values in \[0, 1\]"),
    ],
)
def test_bad_masks_are_refused(mask, message):
    with pytest.raises(CaseError, match=message):
        partial(X, W, None, mask)


def test_lists_are_taken_as_tuples_are():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3)
    got = plain(x, weight, stride=[2, 1], padding=[1, 0], dilation=[1, 2])
    assert torch.equal(got, plain(x, weight, stride=(2, 1), padding=(1, 0), dilation=(1, 2)))


def test_an_expanded_mask_is_checked():
    with pytest.raises(CaseError, match=r"mask must hold values in \[0, 1\]"):
        partial(X, W, None, torch.full((1, 1, 8, 8), -0.5).expand(2, 4, 8, 8))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("kernel_size", [(2, 3), (3, 4), (4, 2)])
def test_same_padding_is_that_of_torch_for_even_kernels_too(kernel_size, mode):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, kernel_size, padding="same", padding_mode=mode, dtype=torch.float64)
    x = torch.randint(-3, 4, (2, 4, 8, 8)).double()
    with torch.no_grad():
        for parameter in layer.parameters():  # integers, so that both sums are exact
            parameter.copy_(torch.randint(-2, 3, parameter.shape))
        expected = layer(x)
        got = plain(x, layer.weight, layer.bias, padding="same", padding_mode=mode)
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ((X, W.double(), None, None), r"weight.dtype=torch.float64 must be torch.float32"),
        ((X, W, torch.zeros(6).half(), None), r"bias.dtype=torch.float16 must be torch.float32"),
        ((X, None, None, None), r"weight=None must be given"),
    ],
)
def test_mixed_dtypes_and_absent_tensors_are_refused(tensors, message):
    with pytest.raises(CaseError, match=message):
        call(VARIANT, tensors)
    with pytest.raises(CaseError, match="5 tensors are given, expected x, weight, bias, mask"):
        call(VARIANT, (*tensors, None))


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_lowers_what_it_lowers_for_convolutions(given):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, dtype=torch.float64 if given == torch.float64 else torch.float32)
    x, mask = torch.randn(2, 4, 8, 8).to(given), torch.rand(2, 4, 8, 8).round()
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        got = partial(x, layer.weight, layer.bias, mask).output
    assert got.dtype == expected.dtype
    lowered = (t.to(expected.dtype) for t in (x, layer.weight, layer.bias))
    assert torch.equal(got, partial(*lowered, mask).output)
    got.float().sum().backward()
    assert layer.weight.grad.dtype == layer.weight.dtype
