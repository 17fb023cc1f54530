"""stfc-sciml/DifferentialConv2d: its function and layer, over the part of `diff` that they have."""

import os
import re
import sys
from dataclasses import replace

from harness.api import Implementation, Kind, from_layer, per_channel
from impls.diff import VARIANT as DIFF

sys.path.append(os.environ.get("DIFFCONV2D_PATH", ""))
try:
    from diff_conv2d import functional, layers
except ImportError as e:
    url = "github.com/stfc-sciml/DifferentialConv2d"
    raise ImportError(f"DIFFCONV2D_PATH: no checkout of {url}: {e}") from e
STATE = [f"{part}_layer.{word}" for part in ("inter", "edge") for word in ("weight", "bias")]
LIMITS = "^(?!.*k(3x3|5x5|7x7) s1x1 .* d1x1 )|degree"  # as documented


def function(x, weight, bias, edge_kernel, _, *, stride, dilation, groups, **options):
    conv = functional.DiffConv2d(weight.shape[-1]).conv2d
    y = conv(x, weight, groups, edge_kernel=edge_kernel, **options)
    return y if bias is None else y + per_channel(bias, y)


def without(others):
    return lambda case: "another mode" if re.search(others, str(case)) else None


def layer(name, others, edge):  # the function tells what it does in other dtypes than float32
    return from_layer(
        name, {2: layers.DiffConv2dLayer}, state=STATE, train_edge_kernel=edge,
        takes=("keep_img_grad_at_invalid", "optimized_for"),
        unsupported=without(LIMITS + "|^(?!.*float32)|" + others),
    )  # fmt: skip


def square(case):
    side = max(3, *case.kernel_size)
    half = (side // 2, side // 2)
    return replace(case, kernel_size=(side, side), padding=half, in_size=(side, side))


FUNCTION = Implementation(
    name="function", load=lambda: function, kind=Kind.REFERENCE,
    unsupported=without(LIMITS + "|b1 .*edge_kernel"),
)  # fmt: skip
VARIANT = replace(
    DIFF, name="diff_published", layer=None, cases={}, quick=(),
    options={name: words for name, words in DIFF.options.items() if name != "degree"},
    domain=replace(DIFF.domain, ranks=(2,), settle=square, strides=False, dilations=False),
    implementations=(
        FUNCTION,
        layer("layer", "edge_kernel", False),
        layer("edge_layer", "^(?!.*edge_kernel)", True),
        layer("edge_layer_speed", "^(?!.*edge_kernel.*speed)", True),
    ),
)  # fmt: skip
