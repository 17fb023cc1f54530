"""miaotianyi/multi-source-convolution: its tiling, before torch's convolution, as `tile_concat`."""

import os
import sys

from torch.nn import Conv2d

from harness.api import from_layer

sys.path.append(os.environ.get("MSCONV_PATH", ""))
try:
    from tile_concat import tile_and_concatenate
except ImportError as e:
    url = "github.com/miaotianyi/multi-source-convolution"
    raise ImportError(f"MSCONV_PATH: no checkout of {url}: {e}") from e


class Tiled(Conv2d):
    def __init__(self, channels, *args, **options):
        super().__init__(sum(channels), *args, **options)

    def forward(self, *sources):  # noqa: D102
        return super().forward(tile_and_concatenate(*sources))


def declined(case):
    return None if case.sources[0] else "needs an image"


ADDED = from_layer("tiled", {2: Tiled}, takes=("padding_mode",), unsupported=declined)
IMPLEMENTATIONS = {"tile_concat": [ADDED]}
