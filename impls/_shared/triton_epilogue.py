"""What follows a convolution of masked signals, in one pass over its output: `y * r + b * m`."""

from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from impls._shared.triton_runtime import (
    INTERPRETED,
    accumulator,
    blank,
    flat,
    flat_strides,
    launch,
    launches,
    tuned,
)

# Positions that one program goes over: what it sums up for the bias is one entry.
SPAN = 128 if INTERPRETED else 1024


@tuned(
    ("rows", "positions", "HAS_BIAS", "HAS_SUMS"),
    {"ROWS": 16, "WIDTH": SPAN},
    triton.Config({"ROWS": 1, "WIDTH": 1024}, num_warps=4),
    triton.Config({"ROWS": 4, "WIDTH": 256}, num_warps=4),
    triton.Config({"ROWS": 16, "WIDTH": 64}, num_warps=4),
    triton.Config({"ROWS": 64, "WIDTH": 32}, num_warps=8),
)
@triton.jit
def _rescale(
    y, bias, ratio, share, out, sums, rows, positions, channels, per_ratio,
    y_strides, out_strides, ratio_strides, spans,
    HAS_BIAS: tl.constexpr, HAS_SUMS: tl.constexpr, ACC: tl.constexpr,
    SPAN: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """`out = y * ratio + bias * share`; `sums[row, span] = sum of y * share over the span`.

    A row is a sample's channel; `per_ratio` channels share one of `ratio` and `share`.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sample, channel = (row // channels).to(tl.int64), row % channels
    near = sample * ratio_strides[0] + channel // per_ratio * ratio_strides[1]
    from_y = sample * y_strides[0] + channel * y_strides[1]
    to = sample * out_strides[0] + channel * out_strides[1]
    if HAS_BIAS:
        added = tl.load(bias + channel, mask=row < rows, other=0.0).to(ACC)[:, None]
    total = tl.zeros([ROWS], ACC)
    for start in range(0, SPAN, WIDTH):
        position = tl.program_id(1) * SPAN + start + tl.arange(0, WIDTH)
        inside = (row < rows)[:, None] & (position < positions)[None, :]
        place = near[:, None] + position[None, :] * ratio_strides[2]
        where = from_y[:, None] + position[None, :] * y_strides[2]
        given = tl.load(y + where, mask=inside, other=0.0).to(ACC)
        value = given * tl.load(ratio + place, mask=inside, other=0.0).to(ACC)
        if HAS_BIAS or HAS_SUMS:
            part = tl.load(share + place, mask=inside, other=0.0).to(ACC)
            if HAS_BIAS:
                value += added * part
            if HAS_SUMS:
                total += tl.sum(given * part, axis=1)
        where = to[:, None] + position[None, :] * out_strides[2]
        tl.store(out + where, value.to(out.dtype.element_ty), mask=inside)
    if HAS_SUMS:
        tl.store(sums + row * spans + tl.program_id(1), total, mask=row < rows)


def _run(
    y: Tensor, bias: Tensor | None, ratio: Tensor, share: Tensor, *, summed: bool
) -> tuple[Tensor, Tensor | None]:
    """Return `y * ratio + bias * share` and, where wanted, the sum of `y * share` per channel."""
    if share.stride() != ratio.stride() or flat_strides(ratio) is None:
        ratio, share = ratio.contiguous(), share.contiguous()
    ratio, near = flat(ratio)
    (y, from_y), (out, to) = flat(y), flat(blank(y.shape, y))
    rows, positions = prod(y.shape[:2]), prod(y.shape[2:])
    spans = -(-positions // SPAN)
    wide = torch.promote_types(y.dtype, torch.float32)
    sums = out.new_empty((*y.shape[:2], spans if summed else 0), dtype=wide)
    if rows and positions:
        launch(
            _rescale, lambda meta: (triton.cdiv(rows, meta["ROWS"]), spans),
            y, ratio if bias is None else bias, ratio, share, out, sums,
            rows, positions, y.shape[1], y.shape[1] // ratio.shape[1], from_y, to,
            (0 if ratio.shape[0] == 1 else near[0], *near[1:]), spans,
            HAS_BIAS=bias is not None, HAS_SUMS=summed,
            ACC=accumulator(y.dtype), SPAN=SPAN,
        )  # fmt: skip
    total = sums.sum((0, 2)).to(y.dtype) if summed else None
    return out.to(y.dtype), total


class _Rescaled(torch.autograd.Function):
    """`(y, b) -> y r + b m`, linear, `r` and `m` constants."""

    @staticmethod
    def forward(y: Tensor, bias: Tensor | None, ratio: Tensor, share: Tensor) -> Tensor:
        """Return `y r + b m`."""
        return _run(y, bias, ratio, share, summed=False)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the constants."""
        del output
        _, bias, ratio, share = inputs
        ctx.biased = bias is not None
        ctx.save_for_backward(ratio, share if ctx.biased else None)
        ctx.save_for_forward(ratio, share if ctx.biased else None)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return `g r` and `sum g m`."""
        ratio, share = ctx.saved_tensors
        if not ctx.biased:
            return _Rescaled.apply(gradient, None, ratio, ratio), None, None, None
        return *_Gathered.apply(gradient, ratio, share), None, None

    @staticmethod
    def jvp(ctx: Any, y: Tensor, bias: Tensor | None, *_: Any) -> Tensor:
        """Return `dy r + db m`."""
        ratio, share = ctx.saved_tensors
        return _Rescaled.apply(
            y, bias if ctx.biased else None, ratio, share if ctx.biased else ratio
        )


class _Gathered(torch.autograd.Function):
    """`g -> (g r, sum g m)`: the adjoint of the other, in one pass over `g`."""

    @staticmethod
    def forward(gradient: Tensor, ratio: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return `g r` and `sum g m` over batch and positions."""
        scaled, total = _run(gradient, None, ratio, share, summed=True)
        assert total is not None
        return scaled, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the constants."""
        del output
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, scaled: Tensor, total: Tensor) -> tuple[Tensor | None, ...]:
        """Return `h r + k m`."""
        return _Rescaled.apply(scaled, total, *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Return `dg r` and `sum dg m`."""
        return _Gathered.apply(gradient, *ctx.saved_tensors)


def rescale(y: Tensor, bias: Tensor | None, ratio: Tensor, share: Tensor) -> Tensor:
    """Return `y * ratio + bias * share`, laid out like `y`.

    Args:
        y: Shape `(N, C, *S)`.
        bias: Shape `(C,)`.
        ratio, share: Constants, shape `(1|N, C', *S)`, `C'` a divisor of C: of as many equal parts
            of the channels.
    """
    if launches(y, bias, ratio, share):
        return _Rescaled.apply(y, bias, ratio, share)
    split = y.unflatten(1, (ratio.shape[1], -1))
    scaled = split * ratio.unsqueeze(2)
    if bias is not None:
        column = bias.view(ratio.shape[1], -1, *(1 for _ in y.shape[2:]))
        scaled = scaled + column * share.unsqueeze(2)
    return scaled.flatten(1, 2)
