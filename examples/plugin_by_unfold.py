"""A partial convolution from outside the tree: `--plugin examples/plugin_by_unfold.py`."""

from collections import namedtuple

import torch
from torch.nn.functional import unfold

from harness.api import Implementation

Output = namedtuple("Output", "output mask")


def by_unfold(x, weight, bias, mask, *, stride, padding, dilation, groups=1):
    mask = torch.ones_like(x[:1, :1]) if mask is None else mask.detach().to(x.dtype)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    columns = unfold(torch.where(mask > 0, x * mask, 0), weight.shape[2:], **geometry)
    present = unfold(mask, weight.shape[2:], **geometry).sum(1, keepdim=True)
    win = weight[0, : mask.shape[1]].numel()
    y = weight.flatten(1) @ columns * torch.where(present > 0, win / present, 0)
    y = (y if bias is None else y + bias[:, None]) * present.clamp(max=1)
    size = torch.conv2d(mask[:1, :1], weight[:1, :1].detach(), **geometry).shape[2:]
    return Output(y.unflatten(2, size), present.clamp(max=1).unflatten(2, size))


def unsupported(case):
    return None if (case.spatial_dims, case.groups) == (2, 1) and case.n else "only 2D, g1, n > 0"


added = Implementation(name="by_unfold", load=lambda: by_unfold, unsupported=unsupported)
IMPLEMENTATIONS = {"partial": [added]}
