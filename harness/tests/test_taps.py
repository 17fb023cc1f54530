"""The loop over taps against the library's own padding and convolution."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.taps import apply_mask, pad, taps

TORCH_MODE = {
    "zeros": "constant",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(TORCH_MODE)), st.integers(1, 6), st.integers(1, 6), st.data())
def test_padding_equals_that_of_torch(mode, height, width, data):
    limit = {
        "zeros": 4,
        "replicate": 4,
        "reflect": min(height, width) - 1,
        "circular": min(height, width),
    }
    sides = st.integers(0, limit[mode])
    rows, columns = data.draw(st.tuples(sides, sides)), data.draw(st.tuples(sides, sides))
    x = torch.arange(2.0 * height * width).view(1, 2, height, width)
    expected = torch.nn.functional.pad(x, (*columns, *rows), mode=TORCH_MODE[mode])
    assert torch.equal(pad(x, (rows, columns), mode), expected)


@pytest.mark.parametrize(("mode", "limit"), [("reflect", 2), ("circular", 3)])
def test_padding_wider_than_the_mode_allows_is_refused(mode, limit):
    message = f"padding=4 needs at most {limit} for padding_mode='{mode}' on an axis of size 3"
    with pytest.raises(ValueError, match=message):
        pad(torch.ones(1, 1, 3), (4,), mode)


def test_windows_are_views_in_raster_order():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    found = list(taps(x, (2, 2), **geometry))
    assert [tap for tap, _ in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found[3][1].tolist() == [[[[4, 5], [7, 8]]]]
    assert found[0][1].data_ptr() == x.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.long])
def test_a_mask_selects_and_does_not_multiply(dtype):
    x = torch.tensor([1.0, float("nan"), float("inf")], requires_grad=True)
    y = apply_mask(x, torch.tensor([1, 0, 0]).to(dtype))
    y.sum().backward()
    assert y.tolist() == [1, 0, 0]
    assert x.grad.tolist() == [1, 0, 0]
