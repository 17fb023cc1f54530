"""A partial convolution that is wrong on purpose, in two ways that published code is wrong.

It multiplies by the mask instead of selecting (0 * NaN is NaN, so holes are seen), and it divides by
the coverage plus an epsilon, so that nothing is ever quite right.
    python3 -m harness check 'partial/broken n1 c1>1 i3 k2 p1' --plugin examples/plugin_broken.py
"""

from typing import NamedTuple

import torch

from harness.api import Implementation


class Output(NamedTuple):
    output: torch.Tensor
    mask: torch.Tensor


def broken(x, weight, bias, mask, *, stride, padding, dilation, groups):
    mask = torch.ones_like(x[:1, :1]) if mask is None else mask.to(x.dtype)
    ones = torch.ones_like(weight[:1, : mask.shape[1]])
    geometry = (stride, padding, dilation, False, [0] * len(padding))
    coverage = torch.convolution(mask, ones, None, *geometry, 1)
    y = torch.convolution(x * mask, weight, None, *geometry, groups)
    y = y * ones.numel() / (coverage + 1e-8)  # the published epsilon
    updated = coverage.clamp(max=1)
    y = (y if bias is None else y + bias.view(-1, *[1] * (x.dim() - 2))) * updated
    return Output(y, updated)


def unsupported(case):
    return None if case.groups == 1 else "one group only"


added = Implementation(name="broken", load=lambda: broken, unsupported=unsupported)
IMPLEMENTATIONS = {"partial": [added]}
