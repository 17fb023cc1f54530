"""A partial convolution from outside the tree: `--plugin examples/plugin_by_unfold.py`."""

import torch
from torch.nn.functional import unfold

from harness.api import Ability, Implementation
from impls.partial import PartialOutput


def by_unfold(x, weight, bias, mask, *, stride, padding, dilation, groups=1):
    mask = torch.ones_like(x[:1, :1]) if mask is None else mask.detach().to(x.dtype)
    assert mask.shape[2:] == x.shape[2:], "the mask does not fit"
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    columns = unfold(torch.where(mask > 0, x * mask, 0).view(x.shape), weight.shape[2:], **geometry)
    present = unfold(mask, weight.shape[2:], **geometry).sum(1, keepdim=True)
    y, seen = weight.flatten(1) @ columns, present.clamp(max=1)
    full = y * torch.where(present > 0, weight[0, : mask.shape[1]].numel() / present, 0)
    full = full * seen if bias is None else (full + bias.unflatten(0, (len(weight), 1))) * seen
    size = torch.conv2d(mask[:1, :1], weight[:1, :1].detach(), **geometry).shape[2:]
    return PartialOutput(full.to(y.dtype).unflatten(2, size), seen.unflatten(2, size))


def unsupported(case):
    return None if (case.spatial_dims, case.groups) == (2, 1) and case.n else "only 2D, g1, n > 0"


added = Implementation(name="by_unfold", load=lambda: by_unfold, unsupported=unsupported,
                       lacks={Ability.CHANNELS_LAST: "columns put the channels first"})  # fmt: skip
IMPLEMENTATIONS = {"partial": [added]}
