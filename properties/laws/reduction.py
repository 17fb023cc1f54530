"""What a variant becomes when the thing that makes it special is taken away."""

from dataclasses import replace

import torch

from harness.case import ConvCase
from harness.check import Outputs, Trial
from harness.law import Law
from harness.tensors import each
from harness.variant import Role, Trait


def _library(t: Trial) -> None:
    """Compare with `torch.nn.functional`: an independent witness for the loop over taps."""
    x, weight, bias = t.wide("x"), t.wide("weight"), t.wide("bias")
    mode = t.case.option("padding_mode", "zeros")
    sides = [side for p in reversed(t.case.padding) for side in (p, p)]
    padded = torch.nn.functional.pad(x, sides, mode="constant" if mode == "zeros" else mode)
    function = (torch.conv1d, torch.conv2d, torch.conv3d)[t.case.spatial_dims - 1]
    expected = function(padded, weight, bias, t.case.stride, 0, t.case.dilation, t.case.groups)
    t.agree(t(), {"output": expected}, t.bound())


IS_TORCH = Law(
    id="G0",
    name="is_the_convolution_of_torch",
    statement="f(x, w, b) = torch.nn.functional.conv{1,2,3}d(pad(x), w, b)",
    requires=frozenset({Trait.IS_PLAIN}),
    check=_library,
)


def _ones_are_plain(t: Trial) -> None:
    ones = {name: each(t.tensors[name], torch.ones_like) for name in t.names(Role.MASK)}
    keywords = {"stride", "padding", "dilation", "groups", "padding_mode"} & t.keywords.keys()
    plain = t.other("plain")(
        t.wide("x"),
        t.wide("weight"),
        t.wide("bias"),
        **{name: t.keywords[name] for name in keywords},
    )
    expected: Outputs = {"output": plain}
    t.agree({"output": t(**ones)["output"]}, expected, t.bound(**ones), "mask of ones")


ONES_ARE_PLAIN = Law(
    id="M2",
    aliases=("I1", "K1"),
    name="ones_mask_is_plain",
    statement="f(x, w, b, m = 1) = conv(x, w) + b",
    domain="a bias that is added everywhere, where there is a choice",
    requires=frozenset({Trait.ONES_ARE_PLAIN}),
    within=lambda case: case.with_options(bias_where=None),
    check=_ones_are_plain,
)


def _unpadded(case: ConvCase) -> ConvCase:
    size = tuple(map(max, case.in_size, case.receptive_field))
    return replace(case, padding=(0,) * case.spatial_dims, in_size=size)


def _padded(case: ConvCase) -> ConvCase:
    moved = replace(_unpadded(case), padding=tuple(max(p, 1) for p in case.padding))
    return moved.with_options(padding_mode=None)


ONES_UNPADDED_ARE_PLAIN = Law(
    id="P1",
    name="ones_mask_is_plain_without_padding",
    statement="f(x, w, b, m = 1) = conv(x, w) + b",
    domain="padding 0",
    requires=frozenset({Trait.ONES_UNPADDED_ARE_PLAIN}),
    within=_unpadded,
    outside=_padded,
    check=_ones_are_plain,
)
