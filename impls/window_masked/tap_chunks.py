"""The convolution with a mask for every window, a few taps at a time."""

from typing import Any

import torch
from torch import Tensor

from harness.api import Shape, per_channel, taps
from impls._shared.convolution import pad_by_mode
from impls.window_masked.reference import unfolded

# Entries of unfolded signal at a time: about what stays in a core's own cache.
CHUNK = 1 << 18


def by_tap_chunks(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, *,
    padding: Shape, groups: int, **geometry: Any,
) -> Tensor:  # fmt: skip
    """Return `y = sum_u w[u] @ (x[window(u)] * m[u]) + b`, accumulated in place.

    Where the unfolded signal is small it is one product; else it is never built: the taps are
    taken as few at a time as fit into the cache, each chunk one product that adds to the last.
    """
    kernel_size = weight.shape[2:]
    copied = mask.shape[2:].numel() * x.shape[0] * x.shape[1]
    if torch.compiler.is_exporting() or copied <= CHUNK:  # one graph serves every batch size
        return unfolded(x, weight, bias, mask, padding=padding, groups=groups, **geometry)
    padded = pad_by_mode(x, padding, "zeros") if any(padding) else x
    unpadded = (0,) * len(padding)
    windows = [w for _, w in taps(padded, kernel_size, padding=unpadded, **geometry)]
    masks = mask.to(x.dtype).flatten(2, 1 + len(kernel_size)).unbind(2)
    filters = weight.flatten(2).movedim(2, 0).unflatten(1, (groups, -1)).unbind(0)
    step = max(1, len(windows) * CHUNK // copied)
    y = None
    for start in range(0, len(windows), step):
        chunk = slice(start, start + step)
        pairs = zip(windows[chunk], masks[chunk], strict=True)
        columns = torch.cat(
            [
                (w * m).reshape(x.shape[0] * groups, x.shape[1] // groups, w.shape[2:].numel())
                for w, m in pairs
            ],
            1,
        )
        rows = torch.cat(filters[chunk], 2).expand(x.shape[0], -1, -1, -1).flatten(0, 1)
        y = torch.bmm(rows, columns) if y is None else y.baddbmm_(rows, columns)
    y = y.view(x.shape[0], weight.shape[0], *windows[0].shape[2:])
    return y if bias is None else y + per_channel(bias, y)
