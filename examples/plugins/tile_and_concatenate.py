"""miaotianyi/multi-source-convolution: its tiling, before torch's convolution, as `tile_concat`."""

from torch.nn import Conv2d

from harness.api import checkout, from_layer

URL = "github.com/miaotianyi/multi-source-convolution"
tile_and_concatenate = checkout("MSCONV_PATH", "tile_concat", URL).tile_and_concatenate


class Tiled(Conv2d):
    def __init__(self, channels, *args, **options):
        super().__init__(sum(channels), *args, **options)

    def forward(self, *sources):
        return super().forward(tile_and_concatenate(*sources))


def with_image(case):
    return case if case.sources[0] else None


ADDED = from_layer("tiled", {2: Tiled}, takes=("padding_mode",), within=with_image)
IMPLEMENTATIONS = {"tile_concat": [ADDED]}
