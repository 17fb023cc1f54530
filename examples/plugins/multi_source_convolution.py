"""miaotianyi/multi-source-convolution: MSConv2d as `multi_source`, and tied as `tile_concat`."""

import os
import sys

from harness.api import Implementation, from_layer

sys.path.append(os.environ.get("MSCONV_PATH", ""))
try:
    from msconv2d import MSConv2d
except ImportError as e:
    url = "github.com/miaotianyi/multi-source-convolution"
    raise ImportError(f"MSCONV_PATH: no checkout of {url}: {e}") from e
BLOCKS = ("nchw_block", "nch_block", "ncw_block", "nc_block")
STATE = [[f"{block}.{word}" for block in BLOCKS] for word in ("weight", "bias")]
MSCONV = from_layer("msconv", {2: MSConv2d}, takes=("padding_mode",), state=STATE)


def tied(x, weight, bias, **keywords):  # the weights that its README promises for any tiling
    parts = iter(weight.split([source.shape[1] for source in x if source is not None], 1))
    axes = zip(x, ([], [3], [2], [2, 3]), strict=True)
    sums = tuple(None if s is None else next(parts).sum(a) if a else next(parts) for s, a in axes)
    return MSCONV.load()(x, sums, bias, **keywords)


def declined(case):
    fits = case.spatial_dims == 2 and case.sources[0] and case.groups == 1
    return None if fits else "one group with an image only"


TIED = Implementation(name="msconv_tied", load=lambda: tied, unsupported=declined)
IMPLEMENTATIONS = {"multi_source": [MSCONV], "tile_concat": [TIED]}
