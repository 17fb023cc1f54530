"""The convolution of an image that is continued by polynomials in C++, one pass per plane."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.api import Shape
from impls._shared import native
from impls._shared.extension import extended_axes, side_rows
from impls._shared.onednn import SlowPaths, slow_paths


def convolve_continued(
    x: Tensor, weight: Tensor, bias: Tensor | None, degrees: Sequence[int], *, stride: Shape,
    dilation: Shape, groups: int,
) -> Tensor:  # fmt: skip
    """Return `conv_valid(P x, w) + b`, `P` as in `extension.extend`; for what `takes` takes.

    The backward pass keeps `x` and continues it again.

    Raises:
        CaseError: an axis has too few samples.
    """
    plan = _plan(x.shape, weight.shape, tuple(dilation), groups, x.dtype, tuple(degrees))
    y: Tensor = _operation()(x, weight, bias, plan.entries, stride, dilation, groups, *plan.slow)
    return y


class _Plan(NamedTuple):
    """What the operation takes beside tensors.

    Args:
        entries: Per axis that is continued its number, steps, dilation, degree + 1 and weights.
        slow: Where the library is.
    """

    entries: tuple[int, ...]
    slow: SlowPaths


@lru_cache(maxsize=1024)
def _plan(
    x_shape: torch.Size, weight_shape: torch.Size, dilation: Shape, groups: int,
    dtype: torch.dtype, degrees: Shape,
) -> _Plan:  # fmt: skip
    kernel_size, entries, wide = tuple(weight_shape[2:]), [], list(x_shape)
    for axis, steps, d, q in extended_axes(x_shape[2:], kernel_size, dilation, degrees):
        weights = (weight for rows in side_rows(steps, q) for row in rows for weight in row)
        entries += [axis - 2, steps, d, q + 1, *weights]
        wide[axis] += 2 * steps * d
    return _Plan(tuple(entries), slow_paths(wide, kernel_size, dilation, groups, dtype))


@lru_cache(maxsize=1)
def _operation() -> Any:
    return native.operations().extended_convolution.default
