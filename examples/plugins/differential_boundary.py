"""stfc-sciml/DifferentialConv2d: the layers that it compares with, as methods of `boundary`."""

import os
import sys
import warnings
from dataclasses import replace

from torch.func import functional_call

from harness.api import Implementation, Kind
from impls.boundary import VARIANT as BOUNDARY

sys.path.append(os.environ.get("DIFFCONV2D_PATH", ""))
try:
    from diff_conv2d import layers
except ImportError as e:
    url = "github.com/stfc-sciml/DifferentialConv2d"
    raise ImportError(f"DIFFCONV2D_PATH: no checkout of {url}: {e}") from e
METHODS = {
    "partial": layers.PartConv2dLayer,
    "explicit": layers.ExplicitConv2dLayer,
    "extrapolate": layers.ExtraConv2dLayer,
}


def named(weight, bias, method, keys):  # one kernel, or one per displacement, and one bias
    if method != "explicit":
        return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    places = {
        k: [weight.shape[-1] // 2 - int(d) for d in k.split(".")[1].split("__")] for k in keys
    }
    return {k: weight[*at] if k.endswith("weight") else bias for k, at in places.items()}


def by_layer(x, weight, bias, _, *, stride, dilation, groups, method="zeros"):
    sizes = (weight.shape[-3] * groups, weight.shape[-4], weight.shape[-1], groups)
    layer = METHODS[method](*sizes, bias is not None).to(weight)
    state = named(weight, bias, method, layer.state_dict())
    with warnings.catch_warnings(action="ignore"):  # scipy and NumPy disagree
        return functional_call(layer, state, (x,), tie_weights=False)


def without(method):
    def declined(case):
        sides, ones = {*case.kernel_size}, {*case.stride, *case.dilation}
        fits = case.option("method", "zeros") == method and len(sides) == 1 and ones == {1}
        return None if fits and sides <= {3, 5, 7} else "3x3, 5x5, 7x7, stride 1, dilation 1"

    return declined


def square(case):
    side = max(3, *case.kernel_size)
    half = (side // 2, side // 2)
    return replace(case, kernel_size=(side, side), padding=half, in_size=(side, side))


VARIANT = replace(
    BOUNDARY, name="boundary_published", layer=None, cases={}, quick=(),
    options={"method": ("zeros", *METHODS)},
    domain=replace(BOUNDARY.domain, ranks=(2,), settle=square, strides=False, dilations=False),
    implementations=tuple(
        Implementation(name=m, load=lambda: by_layer, kind=Kind.REFERENCE, unsupported=without(m))
        for m in METHODS
    ),
)  # fmt: skip
