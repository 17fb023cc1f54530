"""Modules in a row, with a mask that goes along."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import activation

from harness.api import CaseError
from impls._carry.masks import Carried, at_centres, without_holes
from impls._shared.layer import ConvLayer

_MIX = {"GLU", "LogSoftmax", "MultiheadAttention", "Softmax", "Softmax2d", "Softmin"}
POINTWISE = (
    *(getattr(activation, name) for name in activation.__all__ if name not in _MIX),
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
    nn.Identity,
)  # fmt: skip
"""Modules that compute every position from itself alone."""


class Pointwise(nn.Module):
    """A module that computes every position from itself alone, beside a mask.

    Args:
        module: E.g. an activation or dropout, `(N, C, *S) -> (N, C', *S)`. What it makes of holes
            is replaced by 0; what stands in them does not reach it.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return `(module(x), mask)`, 0 in holes."""
        return _pointwise(self.module, x, mask)


class MaskedSequential(nn.Sequential):
    """`torch.nn.Sequential` whose modules hand on a signal and its mask.

    What becomes of the mask:

    * Modules whose `forward` takes a `mask` are given it: `PartialConv`, `MaskedConv` and the
      modules of this package return the next one. A mask of one channel is shared by all channels:
      for a `PartialConv(multi_channel=True)` it is repeated, without a copy, to one per channel.
    * `InputMaskedConv`, `KernelMaskedConv` and `torch.nn.ConvNd` (given the signal without what
      stands in holes) return no mask: it is read at the centre of every window.
    * Activations, dropout and `Identity` act on every position alone: holes stay 0.
    * `torch.nn.Upsample` by the nearest neighbour takes the mask along; `torch.nn.Sequential` is
      gone through.

    Without a mask it is `torch.nn.Sequential`, except that it returns the pair. Keys of the
    `state_dict` are those of `torch.nn.Sequential`.

    Raises:
        CaseError: a module that mixes positions and knows no mask, as `torch.nn.BatchNorm2d`.

    >>> import torch
    >>> net = MaskedSequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sigmoid())
    >>> mask = torch.tensor([[1., 1., 0.]]).expand(1, 1, 3, 3)
    >>> y, mask = net(torch.ones(1, 1, 3, 3), mask)
    >>> y[..., 2].any().item(), tuple(mask.shape)
    (False, (1, 1, 3, 3))
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__(*modules)
        for name, module in self.named_children():
            _check(name, module)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Carried:
        """Return the signal and the mask that the last module hands on."""
        for name, module in self.named_children():
            x, mask = carry(module, x, mask, name)
        return Carried(x, mask)


def carry(module: nn.Module, x: Tensor, mask: Tensor | None, name: str = "module") -> Carried:
    """Return what `module` makes of a signal and its mask, as `MaskedSequential` says."""
    _check(name, module)
    if type(module) is nn.Sequential:
        for inner, child in module.named_children():
            x, mask = carry(child, x, mask, f"{name}.{inner}")
        return Carried(x, mask)
    if _takes_mask(module):
        result = module(x, _expected_mask(module, x, mask))
        if isinstance(result, tuple):
            return Carried(*result)
        return _beside_convolution(module, result, mask)
    if isinstance(module, nn.modules.conv._ConvNd):
        y = module(x if mask is None else without_holes(x, mask))
        return _beside_convolution(module, y, mask)
    if isinstance(module, nn.Upsample):
        y = module(x if mask is None else without_holes(x, mask))
        return Carried(y, None if mask is None else module(mask.to(x.dtype)).to(mask.dtype))
    return _pointwise(module, x, mask)


def _pointwise(module: nn.Module, x: Tensor, mask: Tensor | None) -> Carried:
    if mask is None:
        return Carried(module(x), None)
    y = module(without_holes(x, mask))
    if y.shape[2:] != x.shape[2:]:
        raise CaseError(
            f"{type(module).__name__} gives {tuple(y.shape)} of {tuple(x.shape)}: it does not act on "
            "every position alone"
        )
    return Carried(without_holes(y, mask), mask)


def _beside_convolution(module: nn.Module, y: Tensor, mask: Tensor | None) -> Carried:
    if mask is None:
        return Carried(y, None)
    mask = at_centres(mask, module, y.shape[2:])
    return Carried(without_holes(y, mask), mask)


def _expected_mask(module: Any, x: Tensor, mask: Tensor | None) -> Tensor | None:
    """Return `mask` as the layer expects it: of ones, or with one channel per input channel."""
    if mask is None:
        optional = type(module).forward.__defaults__
        return None if optional else x.new_ones((1, 1, *x.shape[2:]))
    if mask.shape[1] != 1 or not getattr(module, "multi_channel", False):
        return mask
    return mask.expand(-1, x.shape[1], *mask.shape[2:])


def _takes_mask(module: nn.Module) -> bool:
    code = getattr(type(module).forward, "__code__", None)  # a signature takes 50 us
    return code is not None and "mask" in code.co_varnames[: code.co_argcount]


def _check(name: str, module: nn.Module) -> None:
    convolution = isinstance(module, nn.modules.conv._ConvNd) and not module.transposed
    # layers of the input's size continue the image beyond its border, not beyond the mask's
    padded = not isinstance(module, ConvLayer) or "padding" in module.geometry()
    nearest = isinstance(module, nn.Upsample) and module.mode.startswith("nearest")
    known = isinstance(module, POINTWISE) or type(module) is nn.Sequential or nearest
    if known or _takes_mask(module) or (convolution and padded):
        return
    raise CaseError(
        f"{name}={module} takes no mask and mixes positions: take the module of its kind that carries "
        "masks, or Pointwise(module) if it acts on every position alone"
    )
