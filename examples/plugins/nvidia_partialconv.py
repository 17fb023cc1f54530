"""NVIDIA/partialconv: PartialConv2d and PartialConv3d as implementations of `partial`."""

from collections import namedtuple

from harness.api import checkout, from_layer

URL = "github.com/NVIDIA/partialconv"
MODULES = {n: checkout("PARTIALCONV_PATH", f"models.partialconv{n}d", URL) for n in (2, 3)}
CLASSES = {n: getattr(module, f"PartialConv{n}d") for n, module in MODULES.items()}
Output = namedtuple("Output", "output mask")


def first(result):  # in one group every channel of the new mask is the same
    return Output(result[0], result[1][:, :1])


def per_channel(case):
    given = {"mask": None} if ("mask", "none") in case.options else {}
    return case.with_options(mask_dtype=None, mask_channels=None, **given)


def mode(suffix, many, within, returns=Output._make):
    fixed = {"takes": ("padding_mode",), "multi_channel": many, "return_mask": True}
    return from_layer(f"nvidia{suffix}", CLASSES, returns=returns, within=within, **fixed)


SHARED = mode("", False, lambda c: c.with_options(mask_dtype=None, mask_channels="one"))
OWN = mode("_multi_channel", True, lambda c: None if c.groups > 1 else per_channel(c), first)
APART = mode("_multi_channel_groups", True, lambda c: per_channel(c) if c.groups > 1 else None)
IMPLEMENTATIONS = {"partial": [SHARED, OWN, APART]}
