"""The image continued once into one buffer, then one convolution of the library."""

from collections.abc import Callable, Sequence

from torch import Tensor

from impls._shared.border import Box, frame, interior, window_of
from impls._shared.convolution import convolve
from impls._shared.extension import degrees_of
from impls._shared.extension_buffer import extend_into_buffer
from impls._shared.extension_eager import convolve_extended


def extended_once(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, edge_kernel: Tensor | None = None,
    edge_bias: Tensor | None = None, *, stride: Sequence[int], dilation: Sequence[int], groups: int,
    degree: int | None = None, keep_img_grad_at_invalid: bool = True, optimized_for: str = "memory",
    extension: Callable[..., Tensor] = extend_into_buffer,
) -> Tensor:  # fmt: skip
    """Return `y = conv_valid(P x, w) + b`; the border costs its own samples and no kernels.

    Where border outputs have a kernel or a gradient of their own, the interior reads the image
    itself and the border is computed in two bands per axis: every output still once.
    """
    del optimized_for
    kernel_size, none = weight.shape[2:], [0] * len(stride)
    degrees = degrees_of(kernel_size, degree)
    geometry = {"stride": stride, "padding": none, "dilation": dilation, "groups": groups}
    alike = edge_kernel is None and keep_img_grad_at_invalid
    if alike and extension is extend_into_buffer:
        return convolve_extended(
            x, weight, bias, degrees, stride=stride, dilation=dilation, groups=groups
        )
    signal = x if keep_img_grad_at_invalid else x.detach()
    extended = extension(signal, kernel_size, dilation, degrees)
    if alike:
        return convolve(extended, weight, bias, **geometry)

    padding = [d * (k - 1) // 2 for k, d in zip(kernel_size, dilation, strict=True)]
    field = [2 * p + 1 for p in padding]
    axes = list(zip(x.shape[2:], kernel_size, stride, dilation, strict=True))

    def compute(box: Box) -> Tensor:
        counts = [stop - first for first, stop in zip(box.first, box.stop, strict=True)]
        starts = [first * s for first, s in zip(box.first, stride, strict=True)]
        if box.inside:
            starts = [start - p for start, p in zip(starts, padding, strict=True)]
            return convolve(window_of(x, starts, counts, stride, field), weight, bias, **geometry)
        band = window_of(extended, starts, counts, stride, field)
        kernel = weight if edge_kernel is None else edge_kernel
        return convolve(band, kernel, bias if edge_bias is None else edge_bias, **geometry)

    out_size = [(size - 1) // s + 1 for size, _, s, _ in axes]
    return frame(out_size, [interior(*axis) for axis in axes], compute)
