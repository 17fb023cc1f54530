"""miaotianyi/multi-source-convolution: MSConv2d as `multi_source`, and tied as `tile_concat`."""

from dataclasses import replace

from harness.api import MAKES_LAYERS, checkout, from_layer

URL = "github.com/miaotianyi/multi-source-convolution"
MSConv2d = checkout("MSCONV_PATH", "msconv2d", URL).MSConv2d
BLOCKS = ("nchw_block", "nch_block", "ncw_block", "nc_block")
STATE = [[f"{block}.{word}" for block in BLOCKS] for word in ("weight", "bias")]
MSCONV = from_layer("msconv", {2: MSConv2d}, takes=("padding_mode",), state=STATE)


def tied(x, weight, bias, **keywords):  # the weights that its README promises for any tiling
    parts = iter(weight.split([source.shape[1] for source in x if source is not None], 1))
    axes = zip(x, ([], [3], [2], [2, 3]), strict=True)
    sums = tuple(None if s is None else next(parts).sum(a) if a else next(parts) for s, a in axes)
    return MSCONV.load()(x, sums, bias, **keywords)


def with_image(case):
    return replace(case, groups=1) if case.spatial_dims == 2 and case.sources[0] else None


TIED = replace(
    MSCONV, name="msconv_tied", load=lambda: tied, within=with_image, layer=None, lacks=MAKES_LAYERS
)
IMPLEMENTATIONS = {"multi_source": [MSCONV], "tile_concat": [TIED]}
