"""ivanstepanovftw/masked_torch: its layers as implementations of `masked` and `partial`."""

import os
import re
import sys
from collections import namedtuple

from harness.api import from_layer

sys.path.append(os.environ.get("MASKED_TORCH_PATH", ""))
try:
    from masked_torch import nn
except ImportError as e:
    url = "github.com/ivanstepanovftw/masked_torch"
    raise ImportError(f"MASKED_TORCH_PATH: no checkout of {url}: {e}") from e
Output = namedtuple("Output", "output mask")


def first(result):  # in one group every channel of the new mask is the same
    return Output(result[0], result[1][:, :1])


def mode(name, word, others, returns=Output._make, **fixed):
    return from_layer(
        name, {rank: getattr(nn, f"{word}{rank}d") for rank in (1, 2, 3)}, returns=returns,
        unsupported=lambda case: "another mode" if re.search(others, str(case)) else None, **fixed,
    )  # fmt: skip


SHARED = "dtype=bool|^(?!.*(channels=one|mask=none))|n[^01] (?!.*(batch=one|mask=none))"
PER_CHANNEL, OWN = "dtype=bool|channels=one|mask=none| g", "dtype=bool|channels=one|apply_mask"
IMPLEMENTATIONS = {
    "masked": [
        mode("masked_torch", "MaskedConv", OWN),
        mode("masked_torch_1x1", "MaskedConv", OWN + "|^(?!.* k1(x1)* )"),
    ],
    "partial": [
        mode("masked_torch", "PartialConv", SHARED),
        mode(
            "masked_torch_channels", "PartialConv", PER_CHANNEL + "[^1]", first, multichannel=True
        ),
        mode("masked_torch_groups", "PartialConv", PER_CHANNEL + "1 ", multichannel=True),
    ],
}
