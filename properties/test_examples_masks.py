"""What the seeds ask for, as examples, and what users of the masked layers meet."""

import importlib
from dataclasses import replace

import pytest
import torch

from harness.case import CaseError
from harness.effort import Profile
from harness.results import Outcome
from harness.search import search
from harness.table import load_table
from properties.laws.centres import FINITE_DIFFERENCES
from properties.laws.coverage import MASK_IS_MAX_POOLED, pooled
from properties.laws.masking import HOLES_ARE_INVISIBLE, MASKING_TWICE_IS_MASKING_ONCE
from properties.laws.window_masks import WINDOWS_APART
from properties.masked_cases import given, holey

pytestmark = pytest.mark.thorough

TABLE = load_table()
input_masked, masked, partial, window_masked = (
    importlib.import_module(f"impls.{name}")
    for name in ("input_masked", "masked", "partial", "window_masked")
)
tap_chunks = importlib.import_module("impls.window_masked.tap_chunks")
VARIANTS = {"input_masked": "InputMasked", "window_masked": "WindowMasked", "masked": "Masked"}

# -- a masked kernel in each step -----------------------------------------------------------------

IMAGE = torch.arange(16.0).view(1, 1, 4, 4)
PIXELS = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1.0]]).view(1, 1, 4, 4)
KERNEL = torch.ones(1, 1, 2, 2)
ANSWER = torch.tensor([[[[5.0, 15.0], [30.0, 40.0]]]])


def _windows(mask):
    """Return what every 2x2 window of stride 2 sees of `mask`, shape `(1, 1, 2, 2, 2, 2)`."""
    return mask.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 1, 4, 5, 2, 3)


def test_masking_the_signal_answers_the_question():
    y = input_masked.functional(IMAGE, KERNEL, None, PIXELS, stride=2)
    assert torch.equal(y, ANSWER)


def test_masking_the_kernel_in_each_step_answers_the_question():
    y = window_masked.functional(IMAGE, KERNEL, None, _windows(PIXELS), stride=2)
    assert torch.equal(y, ANSWER)


def test_partial_convolution_reweights_the_answer():
    y, mask = partial.functional(IMAGE, KERNEL, None, PIXELS, stride=2)
    torch.testing.assert_close(y, ANSWER * 4 / 3)  # three pixels of every window are present
    assert mask.tolist() == [[[[1, 1], [1, 1]]]]


def test_partial_convolution_weighs_corners_and_edges_of_padding():
    ones = torch.ones(1, 1, 5, 5)
    y, _ = partial.functional(ones, torch.ones(1, 1, 3, 3), padding=1)
    plain = torch.nn.functional.conv2d(ones, torch.ones(1, 1, 3, 3), padding=1)
    assert (y / plain)[0, 0, 0].tolist() == [2.25, 1.5, 1.5, 1.5, 2.25]


# -- images of different sizes in one batch -------------------------------------------------------


def _batch(sizes):
    """Return images of `sizes`, and the same padded with garbage to one size, with their masks."""
    torch.manual_seed(0)
    images = [torch.randn(1, 3, *size) for size in sizes]
    batch = torch.full((len(sizes), 3, 9, 10), float("nan"))
    mask = torch.zeros(len(sizes), 1, 9, 10)
    for i, image in enumerate(images):
        height, width = image.shape[2:]
        batch[i, :, :height, :width], mask[i, :, :height, :width] = image[0], 1
    return images, batch, mask


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (input_masked.InputMaskedConv2d, {}),
        (partial.PartialConv2d, {"multi_channel": False}),
        (masked.MaskedConv2d, {"apply_mask": True}),
    ],
    ids=["input_masked", "partial", "masked"],
)
def test_a_padded_batch_gives_every_image_what_it_gives_alone(layer, options):
    images, batch, mask = _batch([(9, 10), (5, 4), (3, 8)])
    convolve = layer(3, 4, 3, padding=1, stride=2, **options)
    together = convolve(batch, mask)
    together = together if isinstance(together, torch.Tensor) else together.output
    for i, image in enumerate(images):
        alone = convolve(image, torch.ones(1, 1, *image.shape[2:]))
        alone = alone if isinstance(alone, torch.Tensor) else alone.output
        height, width = alone.shape[2:]
        torch.testing.assert_close(together[i : i + 1, :, :height, :width], alone)


# -- laws that claim too much ---------------------------------------------------------------------


def _refutation(law, name):
    """Return the shrunk case that refutes `law` over the oracle-like reference of `name`."""
    variant = TABLE.variant(name)
    found = search(law, variant, variant.reference, Profile(cases=300), variants=TABLE.variants)
    assert found.outcome is Outcome.REFUTED, found
    return found.case


def test_masking_twice_is_not_masking_once_for_real_masks():
    case = _refutation(replace(MASKING_TWICE_IS_MASKING_ONCE, within=None), "input_masked")
    assert (case.n, case.c_in, case.c_out, case.taps) == (1, 1, 1, 1)
    assert case.macs <= 4
    assert case.option("mask", "ones") == "real"


def test_windows_that_share_a_pixel_need_masks_of_their_own():
    case = _refutation(replace(WINDOWS_APART, within=holey), "window_masked")
    assert (case.n, case.c_in, case.c_out) == (1, 1, 1)
    assert any(s < f for s, f in zip(case.stride, case.receptive_field, strict=True))


def test_max_pooling_is_no_mask_where_windows_hop_over_the_image():
    case = _refutation(replace(MASK_IS_MAX_POOLED, within=pooled), "partial")
    assert any(d > 1 for d in case.dilation)
    assert (case.n, case.c_in, case.c_out) == (1, 1, 1)


def test_holes_act_on_their_neighbours_unless_the_mask_is_applied():
    case = _refutation(HOLES_ARE_INVISIBLE, "masked")
    assert (case.n, case.c_in, case.c_out) == (1, 1, 1)
    assert case.option("apply_mask", "False") == "False"


def test_finite_differences_see_the_mask_move_where_channels_differ():
    law = replace(FINITE_DIFFERENCES, within=lambda case: replace(given(case), dtype="float32"))
    case = _refutation(law, "masked")
    assert case.c_in // case.groups > 1
    assert case.option("mask_channels", "all") == "all"


# -- layers ---------------------------------------------------------------------------------------


def _layer(variant, name):
    return getattr(importlib.import_module(f"impls.{variant}"), name)


def _mask_for(variant, layer, x):
    """Return a mask of ones for `layer` and `x`."""
    if variant != "window_masked":
        return torch.ones(1, 1, *x.shape[2:])
    sizes = zip(x.shape[2:], layer.kernel_size, strict=True)
    return torch.ones(1, 1, *layer.kernel_size, *(size - k + 1 for size, k in sizes))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_layer_is_a_drop_in_for_the_plain_one(variant, rank):
    plain = getattr(torch.nn, f"Conv{rank}d")(4, 6, 3, groups=2)
    layer = _layer(variant, f"{VARIANTS[variant]}Conv{rank}d")(4, 6, 3, groups=2)
    layer.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(2, 4, *(5,) * rank)
    result = layer(x, _mask_for(variant, layer, x))
    output = result.output if variant == "masked" else result
    torch.testing.assert_close(output, plain(x))
    arguments = repr(plain).removeprefix(type(plain).__name__).removesuffix(")")
    assert repr(layer).startswith(f"{type(layer).__name__}{arguments}")


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_lazy_layer_learns_its_channels(variant, rank):
    name = f"{VARIANTS[variant]}Conv{rank}d"
    lazy = _layer(variant, f"Lazy{name}")(6, 3)
    x = torch.randn(2, 4, *(5,) * rank)
    lazy(x, _mask_for(variant, lazy, x))
    assert type(lazy) is _layer(variant, name)
    assert lazy.in_channels == 4
    assert lazy.weight.shape == (6, 4, *(3,) * rank)


def test_masked_layer_without_a_mask_is_the_plain_one():
    layer = masked.MaskedConv2d(3, 4, 3, padding="same", padding_mode="circular")
    x = torch.randn(1, 3, 6, 6)
    y, mask = layer(x)
    expected = torch.nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular")
    expected.load_state_dict(layer.state_dict())
    torch.testing.assert_close(y, expected(x))
    assert mask is None


def test_masked_layers_stack():
    first, second = masked.MaskedConv2d(3, 4, 3, padding=1), masked.MaskedConv2d(4, 2, 3, stride=2)
    mask = (torch.rand(2, 3, 8, 8) < 0.5).float()
    y, mask = second(*first(torch.randn(2, 3, 8, 8), mask))
    assert y.shape == mask.shape == (2, 2, 3, 3)


def test_small_chunks_of_taps_agree(monkeypatch):
    """Cases of the laws fit into one chunk: make it small, so that all of them need several."""
    variant = TABLE.variant("window_masked")
    chunked = next(i for i in variant.implementations if i.name == "tap_chunks")
    for size in (0, 40):
        monkeypatch.setattr(tap_chunks, "CHUNK", size)
        for law in ("G1", "G1b"):
            found = search(TABLE.law(law), variant, chunked, Profile(cases=40))
            assert found.outcome is Outcome.HOLDS, found.screen


# -- errors ---------------------------------------------------------------------------------------

X, WEIGHT = torch.zeros(2, 4, 5, 5), torch.zeros(6, 4, 3, 3)


@pytest.mark.parametrize("function", [input_masked.functional, window_masked.functional])
def test_a_missing_mask_raises(function):
    with pytest.raises(CaseError, match=r"mask=None must be a tensor"):
        function(X, WEIGHT, None, None)


@pytest.mark.parametrize("function", [input_masked.functional, masked.functional])
def test_a_mask_of_another_shape_raises(function):
    with pytest.raises(CaseError, match=r"mask\.shape=\(2, 3, 5, 5\) must be \(2, 4, 5, 5\) or"):
        function(X, WEIGHT, None, torch.ones(2, 3, 5, 5))


def test_a_window_mask_of_the_input_raises():
    with pytest.raises(CaseError, match=r"mask\.shape=\(2, 4, 5, 5\) must be \(2, 4, 3, 3, 3, 3\)"):
        window_masked.functional(X, WEIGHT, None, torch.ones(2, 4, 5, 5))


def test_a_mask_out_of_range_raises():
    with pytest.raises(CaseError, match=r"mask must hold values in \[0, 1\]"):
        input_masked.functional(X, WEIGHT, None, torch.full((1, 1, 5, 5), 2.0))


def test_window_masks_pad_with_zeros_only():
    layer = window_masked.WindowMaskedConv2d(4, 6, 3, padding_mode="circular")
    with pytest.raises(CaseError, match="padding_mode='circular' must be 'zeros'"):
        layer(X, torch.ones(1, 1, 3, 3, 3, 3))


def test_an_even_kernel_has_no_centre():
    with pytest.raises(CaseError, match=r"kernel_size=\(2, 2\) must be odd"):
        masked.functional(X, torch.zeros(6, 4, 2, 2), None, torch.ones(1, 1, 5, 5))
