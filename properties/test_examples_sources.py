"""Worked examples of several sources: sizes of the document, the counterexample, conversions."""

import importlib
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.case import CaseError, ConvCase
from harness.effort import Profile
from harness.law import Law
from harness.results import Outcome
from harness.search import search
from harness.table import load_table
from harness.tensors import make_tensors
from properties.laws.tiling import UNPADDED_SUMS_ARE_TILES

TABLE = load_table()
MULTI = importlib.import_module("impls.multi_source")
TILE = importlib.import_module("impls.tile_concat")
LAYERS = {
    "multi_source": {
        1: MULTI.MultiSourceConv1d,
        2: MULTI.MultiSourceConv2d,
        3: MULTI.MultiSourceConv3d,
    },
    "tile_concat": {1: TILE.TileConcatConv1d, 2: TILE.TileConcatConv2d, 3: TILE.TileConcatConv3d},
}
LAZY = {
    "multi_source": {1: MULTI.LazyMultiSourceConv1d, 2: MULTI.LazyMultiSourceConv2d, 3: MULTI.LazyMultiSourceConv3d},
    "tile_concat": {1: TILE.LazyTileConcatConv1d, 2: TILE.LazyTileConcatConv2d, 3: TILE.LazyTileConcatConv3d},
}  # fmt: skip
CHANNELS = (3, 4, 5, 6)


def _sources(n=2, height=8, width=9, channels=CHANNELS, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    sizes = ((height, width), (height,), (width,), ())
    return tuple(
        torch.randn((n, c, *size), generator=generator, dtype=dtype) if c else None
        for c, size in zip(channels, sizes, strict=True)
    )


def _layer(name, padding=0, **options):
    torch.manual_seed(0)
    cls = LAYERS[name][2]
    return cls(CHANNELS, 7, 3, padding=padding, dtype=torch.float64, **options)


# -- the document ------------------------------------------------------------------------------


def test_sum_is_image_row_column_and_scalar():
    layer, (image, row, column, scalar) = _layer("multi_source", 1), _sources()
    weight, of_row, of_column, of_scalar = layer.weights
    expected = (
        torch.conv2d(image, weight, layer.bias, padding=1)
        + torch.conv1d(row, of_row, padding=1)[..., None]
        + torch.conv1d(column, of_column, padding=1)[:, :, None, :]
        + torch.nn.functional.linear(scalar, of_scalar)[..., None, None]
    )
    torch.testing.assert_close(layer(image, row, column, scalar), expected)


@pytest.mark.parametrize("implementation", ["concatenated", "short_tiles"])
def test_tiling_is_expanding_and_concatenating(implementation):
    layer = _layer("tile_concat", 1, implementation=implementation)
    image, row, column, scalar = sources = _sources()
    size = image.shape[2:]
    signal = torch.cat([
        image, row[..., None].expand(-1, -1, *size), column[:, :, None].expand(-1, -1, *size),
        scalar[..., None, None].expand(-1, -1, *size),
    ], dim=1)  # fmt: skip
    expected = torch.conv2d(signal, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(*sources), expected)


@pytest.mark.parametrize("implementation", ["concatenated", "short_tiles"])
def test_ones_answer_a_scalar_with_the_taps_inside(implementation):
    y = TILE.functional(
        (None, None, None, torch.ones(1, 1)), torch.ones(1, 1, 3, 3), size=(3, 3), padding=1,
        implementation=implementation,
    )  # fmt: skip
    assert y[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@pytest.mark.parametrize("implementation", ["one_per_source", "small_first"])
def test_a_sum_answers_a_scalar_alike_everywhere(implementation):
    y = MULTI.functional(
        (None, None, None, torch.ones(1, 1)), (None, None, None, torch.full((1, 1), 9.0)),
        size=(3, 3), kernel_size=(3, 3), padding=1, implementation=implementation,
    )  # fmt: skip
    assert y[0, 0].tolist() == [[9, 9, 9]] * 3


def test_parameters_per_output_channel():
    def count(layer):
        return sum(p.numel() for p in layer.parameters())

    k, (image, row, column, scalar) = 3, CHANNELS
    per_filter = image * k**2 + row * k + column * k + scalar
    assert count(_layer("multi_source")) == 7 * (per_filter + 1)
    assert count(_layer("multi_source", bias=False)) == 7 * per_filter
    assert count(_layer("tile_concat")) == 7 * (sum(CHANNELS) * k**2 + 1)


# -- the counterexample ------------------------------------------------------------------------

CLAIMS_TOO_MUCH = replace(
    UNPADDED_SUMS_ARE_TILES, id="S3x", name="sum_of_sources_is_always_tiling", within=None
)


@pytest.mark.parametrize("name", ["multi_source", "tile_concat"])
def test_zero_padding_on_a_tiled_axis_is_the_counterexample(name):
    variant = TABLE.variant(name)
    finding = search(
        CLAIMS_TOO_MUCH, variant, variant.reference, Profile(cases=200), variants=TABLE.variants
    )
    assert finding.outcome is Outcome.REFUTED, finding.screen
    case = finding.case
    assert case is not None
    # one pixel, one tap, one channel of the source that is tiled, one row of padding
    assert (case.n, case.c_in, case.c_out, case.groups, case.bias) == (1, 1, 1, 1, False), case
    assert {*case.in_size, *case.kernel_size, *case.stride, *case.dilation} == {1}, case
    assert (sum(case.padding), sum(case.sources[1:])) == (1, 1), case


def test_interiors_never_differ():
    """The claim holds where it should: no counterexample without zero padding."""

    def without_zero_padding(case):
        mode = case.option("padding_mode", "zeros")
        return UNPADDED_SUMS_ARE_TILES.within(case) if mode == "zeros" else case

    law: Law = replace(CLAIMS_TOO_MUCH, within=without_zero_padding)
    variant = TABLE.variant("tile_concat")
    finding = search(law, variant, variant.reference, Profile(cases=60), variants=TABLE.variants)
    assert finding.outcome is Outcome.HOLDS, finding.screen


# -- conversions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1, "padding_mode": "circular"}, {"dilation": 2}]
)
def test_tiling_becomes_a_sum(options):
    tile, sources = _layer("tile_concat", **options), _sources()
    multi = MULTI.MultiSourceConv2d.from_tile_concat(tile)
    torch.testing.assert_close(multi(*sources), tile(*sources))


@pytest.mark.parametrize("padding", [0, 1, "same"])
@pytest.mark.parametrize("mode", ["zeros", "replicate"])
def test_a_sum_becomes_a_tiling_and_a_sum_again(padding, mode):
    multi, sources = _layer("multi_source", padding, padding_mode=mode), _sources()
    tile = _layer("tile_concat", padding, padding_mode=mode)
    tile.load_state_dict(multi.to_tile_concat())
    torch.testing.assert_close(tile(*sources), multi(*sources))
    back = MULTI.MultiSourceConv2d.from_tile_concat(tile)
    for own, other in zip(multi.weights, back.weights, strict=True):
        assert torch.equal(own, other)
    assert torch.equal(multi.bias, back.bias)


def test_conversion_takes_groups():
    options = {"groups": 2, "dtype": torch.float64}
    channels, sources = (2, 4, 0, 6), _sources(channels=(2, 4, 0, 6))
    tile = TILE.TileConcatConv2d(channels, 4, (3, 2), **options)
    multi = MULTI.MultiSourceConv2d.from_tile_concat(tile)
    torch.testing.assert_close(multi(*sources), tile(*sources))


def test_conversion_raises_where_zero_padding_cuts_taps_off():
    with pytest.raises(
        CaseError, match=r"padding=\(1, 1\) must be 0 on spatial axis 1, or the taps \[0, 2\]"
    ):
        MULTI.MultiSourceConv2d.from_tile_concat(_layer("tile_concat", 1))
    image_alone = torch.randn(2, 3, 3, 3)
    assert MULTI.from_tile_concat(image_alone, (3, 0, 0, 0), padding=1)[0].shape == (2, 3, 3, 3)
    with pytest.raises(
        CaseError, match=r"padding=2 must be smaller on spatial axis 0: scalar is tiled"
    ):
        MULTI.to_tile_concat((None, torch.ones(1, 1)), kernel_size=(3,), padding=2)
    with pytest.raises(CaseError, match=r"in_channels=\(1, 2\) needs 4 entries that sum to 3"):
        MULTI.from_tile_concat(image_alone, (1, 2))


# -- shapes that must be told, and errors ------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("present", [(0,), (1,), (2,), (3,), (1, 2), (0, 3), (1, 3)])
def test_output_always_spans_the_image(name, present):
    channels = tuple(c if i in present else 0 for i, c in enumerate(CHANNELS))
    layer = LAYERS[name][2](channels, 7, 3, padding=1, dtype=torch.float64)
    y = layer(*_sources(channels=channels), size=(8, 9))
    assert y.shape == (2, 7, 8, 9)
    y.sum().backward()
    if not {1, 2} <= set(present) and 0 not in present:
        with pytest.raises(
            CaseError, match="size=None must be given: no source spans spatial axis"
        ):
            layer(*_sources(channels=channels))


@pytest.mark.parametrize("name", LAYERS)
def test_disagreeing_sources_raise(name):
    layer, (image, row, column, scalar) = _layer(name), _sources()
    for sources, message in (
        ((image, row[:, :, 1:], column, scalar), r"row.shape=\(2, 4, 7\) must have size 8 on spatial axis 0"),
        ((image, row, column, scalar[:1]), r"scalar.shape=\(1, 6\) must have batch size 2"),
        ((image, row, column, scalar[..., None]), r"scalar.shape=\(2, 6, 1\) needs 2 axes"),
        ((image, row, None, scalar), r"column=None must be given"),
        ((image, row[:, 1:], column, scalar), r"weight.*shape=.* must be"),
    ):  # fmt: skip
        with pytest.raises(CaseError, match=message):
            layer(*sources)
    with pytest.raises(
        CaseError, match=r"image.shape=.* must have size 5 on spatial axis 0, as size=\(5, 9\) says"
    ):
        layer(image, row, column, scalar, size=(5, 9))
    narrow = LAYERS[name][2]((3, 4, 0, 6), 7, 3, dtype=torch.float64)
    with pytest.raises(
        CaseError, match=r"column.shape=\(2, 5, 9\) must be absent: it has no channels"
    ):
        narrow(image, row, column, scalar)
    with pytest.raises(TypeError):
        layer(image, row, column, scalar, scalar)
    with pytest.raises(
        CaseError, match=r"in_channels=\(3, 4\) needs 4 entries: one each for image, row"
    ):
        LAYERS[name][2]((3, 4), 7, 3)
    with pytest.raises(CaseError, match=r"in_channels=\(0, 0, 0, 0\) must be 0 or more"):
        LAYERS[name][2]((0, 0, 0, 0), 7, 3)


def test_functional_forms_raise():
    x, one = (None, torch.ones(1, 2)), torch.ones(3, 2)
    with pytest.raises(CaseError, match="kernel_size=None must be given: no weight spans"):
        MULTI.functional(x, (None, one), size=(4,))
    with pytest.raises(CaseError, match="x has 3 sources and needs 2, 4 or 8"):
        MULTI.functional((*x, None), (None, one, None), size=(4,), kernel_size=(1,))
    with pytest.raises(CaseError, match="weight has 3 entries and needs 2"):
        MULTI.functional(x, (None, one, one), size=(4,), kernel_size=(1,))
    with pytest.raises(
        CaseError, match="x has 3 sources and needs 2, one per subset of the 1 spatial"
    ):
        TILE.functional((*x, x[1]), torch.ones(3, 2, 1), size=(4,))
    with pytest.raises(CaseError, match="weight has 4 spatial axes and needs 1 to 3"):
        TILE.functional(x, torch.ones(3, 2, 1, 1, 1, 1))
    with pytest.raises(CaseError, match="every source is absent"):
        TILE.functional((None, None), torch.ones(3, 2, 1), size=(4,))
    with pytest.raises(CaseError, match=r"size=\(4, 4\) needs 1 entries"):
        TILE.functional(x, torch.ones(3, 2, 1), size=(4, 4))
    with pytest.raises(CaseError, match=r"kernel_size=\(2, 2\) needs 1 entries"):
        MULTI.functional(x, (None, one), size=(4,), kernel_size=(2, 2))
    line, taps = torch.ones(1, 2, 4), torch.ones(3, 2, 3)
    with pytest.raises(
        CaseError, match=r"weight of line: shape=.* must have 2 taps on spatial axis 0"
    ):
        MULTI.functional((line, x[1]), (taps, one), kernel_size=(2,))
    with pytest.raises(CaseError, match=r"weight of line: shape=.* needs 3 axes"):
        MULTI.functional((line, x[1]), (one, one), kernel_size=(2,))
    with pytest.raises(CaseError, match="padding_mode='wrap' must be one of"):
        MULTI.MultiSourceConv1d((1, 1), 2, 3, padding_mode="wrap")
    with pytest.raises(CaseError, match=r"in_channels=\(2, 3\) is not divisible by groups=2"):
        MULTI.MultiSourceConv1d((2, 3), 2, 3, groups=2)


# -- layers ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's own
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kernel_size", [(2, 4), (3, 2)])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_same_takes_even_kernels(name, kernel_size, mode):
    layer = LAYERS[name][2](
        CHANNELS, 7, kernel_size, padding="same", padding_mode=mode, dtype=torch.float64
    )
    image, row, column, scalar = sources = _sources()
    y, size = layer(*sources), image.shape[2:]
    assert y.shape == (2, 7, *size)
    if name == "tile_concat":
        signal = torch.cat([
            image, row[..., None].expand(-1, -1, *size), column[:, :, None].expand(-1, -1, *size),
            scalar[..., None, None].expand(-1, -1, *size),
        ], dim=1)  # fmt: skip
        plain = nn.Conv2d(18, 7, kernel_size, padding="same", padding_mode=mode).double()
        plain.load_state_dict(layer.state_dict())
        torch.testing.assert_close(y, plain(signal))
    else:
        alone = layer(image, *(s * 0 for s in sources[1:]))
        plain = nn.Conv2d(3, 7, kernel_size, padding="same", padding_mode=mode).double()
        plain.load_state_dict({key: layer.state_dict()[key] for key in ("weight", "bias")})
        torch.testing.assert_close(alone, plain(image))


def test_checkpoints_of_torch_load():
    plain = nn.Conv2d(18, 7, 3)
    _layer("tile_concat").load_state_dict(plain.double().state_dict())
    image_alone = MULTI.MultiSourceConv2d((3, 0, 0, 0), 7, 3)
    image_alone.load_state_dict(nn.Conv2d(3, 7, 3).state_dict())
    torch.manual_seed(1)
    drawn = MULTI.MultiSourceConv2d((3, 0, 0, 0), 7, 3)
    torch.manual_seed(1)
    assert torch.equal(drawn.bias, nn.Conv2d(3, 7, 3).bias)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lazy_layers_learn_their_channels(name, rank):
    size = (5, 4, 3)[:rank]
    case = ConvCase(
        n=2, c_in=2**rank, c_out=3, in_size=size, kernel_size=(2,) * rank, stride=(1,) * rank,
        padding=(1,) * rank, dilation=(1,) * rank, sources=(1,) * (2**rank - 2) + (2, 0),
    )  # fmt: skip
    x = make_tensors(TABLE.variant(name), case)["x"]
    lazy = LAZY[name][rank](3, 2, padding=1)
    y = lazy(*x)
    assert type(lazy) is LAYERS[name][rank]
    assert y.shape == case.out_shape
    assert lazy.source_channels == case.sources
    fresh = LAYERS[name][rank](case.sources, 3, 2, padding=1)
    fresh.load_state_dict(lazy.state_dict())
    torch.testing.assert_close(fresh(*x), y)
    loaded = LAZY[name][rank](3, 2, padding=1)
    loaded.load_state_dict(lazy.state_dict(), strict=False)
    torch.testing.assert_close(loaded(*x), y)
    assert str(case.c_out) in repr(fresh)


@pytest.mark.parametrize("name", LAYERS)
def test_a_sweep_over_scalars_maps(name):
    """`torch.func.vmap` over one source alone, which forbids writing into the others' results."""
    layer, (image, row, column, scalar) = _layer(name, 1), _sources(n=1)
    several = torch.stack([scalar, 2 * scalar])
    with torch.no_grad():
        mapped = torch.func.vmap(lambda s: layer(image, row, column, s))(several)
        expected = torch.stack([layer(image, row, column, s) for s in several])
    torch.testing.assert_close(mapped, expected)


def test_small_images_take_one_convolution():
    variant = TABLE.variant("tile_concat")
    pays = {i.name: i.pays for i in variant.implementations}["short_tiles"]
    assert not pays(ConvCase.parse(variant.cases["unet_bottleneck_8x8"]))
    assert pays(ConvCase.parse(variant.cases["unet_decoder"]))
