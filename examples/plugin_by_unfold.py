"""A partial convolution from outside the tree: 30 lines are enough.

python3 -m harness bench --plugin examples/plugin_by_unfold.py --variant partial
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

from harness.api import Implementation


class Output(NamedTuple):
    output: torch.Tensor
    mask: torch.Tensor


def by_unfold(x, weight, bias, mask, *, stride, padding, dilation, groups):
    assert groups == 1
    mask = torch.ones_like(x[:1, :1]) if mask is None else mask.to(x.dtype)
    geometry = {"dilation": dilation, "padding": padding, "stride": stride}
    columns = F.unfold(torch.where(mask > 0, x * mask, 0), weight.shape[2:], **geometry)
    present = F.unfold(mask, weight.shape[2:], **geometry).sum(1, keepdim=True)
    win = weight[0, :1].numel() if mask.shape[1] == 1 else weight[0].numel()
    updated = present.clamp(max=1)
    y = weight.flatten(1) @ columns * torch.where(present > 0, win / present, 0)
    y = (y + (0 if bias is None else bias[:, None])) * updated
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
    return Output(y.unflatten(2, size), updated.unflatten(2, size))


def unsupported(case):
    return None if case.spatial_dims == 2 and case.groups == 1 else "2D and one group only"


IMPLEMENTATIONS = {
    "partial": [Implementation(name="by_unfold", load=lambda: by_unfold, unsupported=unsupported)]
}
