"""NVIDIA/partialconv: PartialConv2d and PartialConv3d as implementations of `partial`."""

import os
import re
import sys
from collections import namedtuple

from harness.api import from_layer

sys.path.append(os.environ.get("PARTIALCONV_PATH", ""))
try:
    from models import partialconv2d, partialconv3d
except ImportError as e:
    raise ImportError(f"PARTIALCONV_PATH: no checkout of github.com/NVIDIA/partialconv: {e}") from e
Output = namedtuple("Output", "output mask")


def first(result):  # in one group every channel of the new mask is the same
    return Output(result[0], result[1][:, :1])


def mode(name, others, returns, many):
    return from_layer(
        name, {2: partialconv2d.PartialConv2d, 3: partialconv3d.PartialConv3d}, returns=returns,
        takes=("padding_mode",), multi_channel=many, return_mask=True,
        unsupported=lambda case: "another mode" if re.search(others, str(case)) else None,
    )  # fmt: skip


PER_CHANNEL = "dtype=bool|channels=one|mask=none| g"
IMPLEMENTATIONS = {
    "partial": [
        mode("nvidia", "dtype=bool|^(?!.*(channels=one|mask=none))", Output._make, False),
        mode("nvidia_multi_channel", PER_CHANNEL + "[^1]", first, True),
        mode("nvidia_multi_channel_groups", PER_CHANNEL + "1 ", Output._make, True),
    ]
}
