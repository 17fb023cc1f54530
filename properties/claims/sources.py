"""An image, rows, columns and scalars: one convolution of the tiled whole, or one for each."""

import torch
from torch import Tensor, nn

from harness.case import CaseError
from harness.claim import Answer, Judgement, claim, decide, decide_on
from properties.claims._tools import (
    MULTI_SOURCE,
    cases_of,
    counted,
    experiment,
    held,
    largest_difference,
    variant,
    whole,
)

N, CHANNELS, HEIGHT, WIDTH, FILTERS, TAPS = 2, (3, 4, 5, 6), 8, 9, 7, 3
SHAPES = ((N, 3, HEIGHT, WIDTH), (N, 4, HEIGHT), (N, 5, WIDTH), (N, 6))


def whole_sources() -> tuple[Tensor, ...]:
    """Return an image, a row, a column and scalars of whole numbers."""
    return tuple(whole(*shape, seed=seed) for seed, shape in enumerate(SHAPES))


def _tiled(sources: tuple[Tensor, ...]) -> list[Tensor]:
    """Return every source over the whole image, without copying it."""
    image, row, column, scalar = sources
    views = image, row[..., None], column[:, :, None], scalar[..., None, None]
    return [view.expand(-1, -1, HEIGHT, WIDTH) for view in views]


def layers(**options: object) -> tuple[nn.Module, nn.Module]:
    """Return the layer per source and the layer of the tiled whole, weights in sixteenths."""
    several = variant("multi_source").MultiSourceConv2d(CHANNELS, FILTERS, TAPS, **options)
    single = variant("tile_concat").TileConcatConv2d(CHANNELS, FILTERS, TAPS, **options)
    for layer in (several.double(), single.double()):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_((parameter * 16).round())
    return several, single


def _count(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


@claim(
    "003.1", MULTI_SOURCE,
    "For any weights of the tiled convolution there is a multi-source one that computes the same.",
    Answer.TRUE_ON, domain="no zero padding along an axis that a source is tiled over",
)  # fmt: skip
def equivalent_for_any_weights() -> Judgement:
    """Judge the laws of both directions; then find an output that no sum of sources can give."""
    laws = experiment("S1", "tile_concat"), experiment("S2", "tile_concat")
    one = torch.ones(1, 1)
    y = variant("tile_concat").functional(
        (None, None, None, one), torch.ones(1, 1, 3, 3), size=(3, 3), padding=1
    )[0, 0]
    alike = experiment("S6b", "multi_source")
    try:
        variant("multi_source").MultiSourceConv2d.from_tile_concat(layers(padding=1)[1])
        converted = "converts"
    except CaseError:
        converted = "is refused"
    # whatever its weights, a sum of sources answers a scalar alike at all positions
    reachable = len(y.unique()) == 1 or not held(alike)
    return decide_on(
        held(*laws), reachable,
        f"laws S1 and S2 hold in {cases_of(*laws)} cases; with padding 1 a 3x3 kernel of ones "
        f"answers the scalar 1 with {y.tolist()}, where a sum of sources is alike everywhere (law "
        f"S6b, {alike.cases} cases); converting such a layer {converted}",
    )  # fmt: skip


@claim(
    "003.2", MULTI_SOURCE,
    "Where the receptive field is constant, a weight can be replaced by the sum of its taps.",
    Answer.TRUE_ON, domain="windows inside the image",
)  # fmt: skip
def constant_fields_need_one_weight() -> Judgement:
    """Convolve a constant channel, with and without zero padding."""
    weight, value = whole(1, 1, 3, 3), 3.0
    image = torch.full((1, 1, 5, 5), value).double()
    inside = torch.conv2d(image, weight).unique()
    padded = torch.conv2d(image, weight, padding=1).unique()
    expected = float(weight.sum()) * value
    laws = experiment("S4", "tile_concat"), experiment("S10", "multi_source")
    return decide_on(
        inside.tolist() == [expected] and held(*laws), padded.tolist() == [expected],
        f"taps that sum to {float(weight.sum())} answer the constant {value} with {inside.tolist()} "
        f"inside and with {len(padded)} values under zero padding; laws S4 and S10 hold in "
        f"{cases_of(*laws)} cases",
    )  # fmt: skip


@claim(
    "003.3", MULTI_SOURCE,
    "Per filter the multi-source layer has C1 k^2 + (C2 + C3) k + C4 weights, the tiled one "
    "(C1 + C2 + C3 + C4) k^2.",
    Answer.TRUE,
)  # fmt: skip
def weights_are_saved() -> Judgement:
    """Count the parameters of both layers."""
    several, single = map(_count, layers(bias=False))
    c1, c2, c3, c4 = CHANNELS
    expected = c1 * TAPS**2 + (c2 + c3) * TAPS + c4, sum(CHANNELS) * TAPS**2
    return decide(
        (several, single) == tuple(FILTERS * count for count in expected),
        f"channels {CHANNELS}, {TAPS}x{TAPS}, {FILTERS} filters: {several} and {single} weights",
    )


@claim(
    "003.4", MULTI_SOURCE,
    "Its parts have shapes (N, C, H, W), (N, C, H), (N, C, W) and (N, C), and their sum (N, C, H, W).",
    Answer.TRUE,
)  # fmt: skip
def parts_have_their_shapes() -> Judgement:
    """Compute the parts by torch's own layers and compare their broadcast sum."""
    layer, (image, row, column, scalar) = layers(padding=1)[0], whole_sources()
    weight, of_row, of_column, of_scalar = layer.weights
    parts = (
        torch.conv2d(image, weight, layer.bias, padding=1), torch.conv1d(row, of_row, padding=1),
        torch.conv1d(column, of_column, padding=1), nn.functional.linear(scalar, of_scalar),
    )  # fmt: skip
    shapes = [tuple(part.shape) for part in parts]
    whole_image = (N, FILTERS, HEIGHT, WIDTH)
    expected = [whole_image, whole_image[:3], (N, FILTERS, WIDTH), whole_image[:2]]
    total = parts[0] + parts[1][..., None] + parts[2][:, :, None] + parts[3][..., None, None]
    same = torch.equal(layer(*whole_sources()), total)
    return decide(
        shapes == expected and same,
        f"shapes {shapes}; their sum {'equals' if same else 'differs from'} the layer's output",
    )


@claim(
    "003.5", MULTI_SOURCE, "The vector over the width is convolved along the height.", Answer.FALSE
)
def columns_are_convolved_along_the_height() -> Judgement:
    """Shift the vector and see along which axis the output shifts."""
    column = torch.zeros(1, 1, WIDTH)
    column[..., 4] = 1
    weights = None, None, whole(1, 1, 3).float(), None

    def answer(vector: Tensor) -> Tensor:
        return variant("multi_source").functional(
            (None, None, vector, None), weights, size=(HEIGHT, WIDTH), kernel_size=(3, 3), padding=1
        )

    moved, still = answer(column.roll(1, -1)), answer(column)
    along_width = torch.equal(moved, still.roll(1, 3))
    along_height = torch.equal(moved, still.roll(1, 2))
    return decide(
        along_height and not along_width,
        f"shifting the vector by one shifts the output along its "
        f"{'width' if along_width else 'height'}; along the height it is constant",
    )


@claim(
    "003.6", MULTI_SOURCE, "One of the layers per source needs a bias, not all of them.",
    Answer.TRUE,
)  # fmt: skip
def one_bias_is_enough() -> Judgement:
    """Compare four biases with their sum."""
    layer, biases = layers()[0], whole(4, FILTERS, seed=9)
    with torch.no_grad():
        layer.bias.copy_(biases.sum(0))
    got = layer(*whole_sources())
    with torch.no_grad():
        layer.bias.zero_()
    expected = layer(*whole_sources())
    for bias in biases:
        expected = expected + bias.view(-1, 1, 1)
    return decide(
        torch.equal(got, expected),
        f"four biases and their sum differ by {largest_difference(got, expected)}",
    )


@claim(
    "003.7", MULTI_SOURCE, "Tiling by expanding copies nothing.",
    Answer.TRUE_ON, domain="the tiled views; concatenating them copies every one in full",
)  # fmt: skip
def expanding_copies_nothing() -> Judgement:
    """Count the bytes of expanding, and of concatenating what was expanded."""
    sources = whole_sources()
    views = counted(lambda: _tiled(sources), *sources).peak_bytes
    joined = counted(lambda: torch.cat(_tiled(sources), dim=1), *sources).peak_bytes
    given = sum(source.nbytes for source in sources)
    return decide_on(
        views == 0, joined == 0,
        f"expanding makes {views} bytes, concatenating {joined}, {joined / given:.1f} times the "
        f"{given} bytes of the sources",
    )  # fmt: skip


@claim("003.8", MULTI_SOURCE, "The concatenated input has C1 + C2 + C3 + C4 channels.", Answer.TRUE)
def concatenation_has_all_channels() -> Judgement:
    """Concatenate, convolve by torch and compare with the layer."""
    single, joined = layers()[1], torch.cat(_tiled(whole_sources()), dim=1)
    same = torch.equal(torch.conv2d(joined, single.weight, single.bias), single(*whole_sources()))
    return decide(
        joined.shape == (N, sum(CHANNELS), HEIGHT, WIDTH) and same,
        f"shape {tuple(joined.shape)}; its convolution {'equals' if same else 'differs from'} the "
        "layer's output",
    )
