"""Which dilated convolutions the library computes without oneDNN, and what is done about it."""

import itertools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from impls._shared.convolution import convolve
from impls._shared.onednn import Geometry, forward, is_filled

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN"
)


def _shapes(rank, n, channels, side, taps, dilation, groups):
    x = torch.ones((n, channels, *(side,) * rank))
    weight = torch.ones((2 * groups, channels // groups, *(taps,) * rank))
    return x, weight, Geometry((1,) * rank, (0,) * rank, (dilation,) * rank, groups)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_it_is_known_where_the_library_unfolds_a_dilated_image(rank):
    sizes = itertools.product((1, 2), (2, 64), (12, 60), (1, 3, 5), (1, 2), (1, 2))
    for n, channels, side, taps, dilation, groups in sizes:
        if channels * side**rank > 10**6:
            continue
        x, weight, geometry = _shapes(rank, n, channels, side, taps, dilation, groups)
        with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
            convolve(x, weight, None, **geometry._asdict())
        unfolds = any("slow_conv_dilated" in event.key for event in seen.key_averages())
        known = is_filled(x.shape, weight.shape[2:], geometry.dilation, groups)
        assert known is unfolds, (x.shape, weight.shape, geometry)


@pytest.mark.parametrize("rank", [1, 2])  # in 3D such an image goes to oneDNN
def test_its_bias_is_added_in_one_operation_and_not_channel_by_channel(rank):
    x, weight, geometry = _shapes(rank, 1, 4, 12, 3, 2, 1)
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(x.shape, generator=draw), torch.randn(weight.shape, generator=draw)
    bias = torch.randn(2, generator=draw)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
        y = forward(x, weight, bias, geometry)
    assert not any(event.key == "aten::fill_" for event in seen.key_averages())
    torch.testing.assert_close(y, convolve(x, weight, bias, **geometry._asdict()))
