"""Channels become pixels and pixels channels, masks alike; any rank."""

from torch import Tensor, nn

from harness.api import CaseError
from impls._carry.masks import Carried, without_holes


class MaskedPixelShuffle(nn.Module):
    """`torch.nn.PixelShuffle` for any rank, with a mask: `(N, C r^D, *S) -> (N, C, *(S r))`.

    A shared mask is repeated `r` times along every axis; one per channel is shuffled like `x`.

    Args:
        upscale_factor: `r`.
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return the shuffled signal and mask.

        Raises:
            CaseError: a mask of another shape, or channels that `r^D` does not divide.
        """
        factor = self.upscale_factor
        parts = factor ** (x.dim() - 2)
        if x.shape[1] % parts:
            raise CaseError(f"x.shape={tuple(x.shape)} must have a multiple of {parts} channels")
        if mask is None:
            return Carried(_shuffled(x, factor), None)
        y = _shuffled(without_holes(x, mask), factor)
        if mask.shape[1] != 1 or parts == 1:
            return Carried(y, _shuffled(mask, factor))
        for axis in range(2, x.dim()):
            mask = mask.repeat_interleave(factor, axis)
        return Carried(y, mask)

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"upscale_factor={self.upscale_factor}"


class MaskedPixelUnshuffle(nn.Module):
    """`torch.nn.PixelUnshuffle` for any rank, with a mask: `(N, C, *(S r)) -> (N, C r^D, *S)`.

    The new mask has one channel per channel of the output: pixels of a block may differ.

    Args:
        downscale_factor: `r`.
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return the signal and mask taken apart.

        Raises:
            CaseError: a mask of another shape, or a size that `r` does not divide.
        """
        factor = self.downscale_factor
        if any(size % factor for size in x.shape[2:]):
            raise CaseError(
                f"x.shape={tuple(x.shape)} must have multiples of {factor} as spatial sizes"
            )
        if mask is None:
            return Carried(_unshuffled(x, factor), None)
        y = _unshuffled(without_holes(x, mask), factor)
        full = mask.expand(-1, x.shape[1], *mask.shape[2:])
        return Carried(y, _unshuffled(full, factor))

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        return f"downscale_factor={self.downscale_factor}"


def _shuffled(x: Tensor, factor: int) -> Tensor:
    rank = x.dim() - 2
    split = x.unflatten(1, (-1, *(factor,) * rank))
    # (N, C, r, .., r, *S) with every r behind its axis
    order = [2 + rank + axis // 2 if axis % 2 == 0 else 2 + axis // 2 for axis in range(2 * rank)]
    sizes = [size * factor for size in x.shape[2:]]
    return split.permute(0, 1, *order).reshape(*split.shape[:2], *sizes)


def _unshuffled(x: Tensor, factor: int) -> Tensor:
    rank = x.dim() - 2
    parts = [part for size in x.shape[2:] for part in (size // factor, factor)]
    split = x.reshape(*x.shape[:2], *parts)
    order = [*(3 + 2 * axis for axis in range(rank)), *(2 + 2 * axis for axis in range(rank))]
    return split.permute(0, 1, *order).flatten(1, 1 + rank)
