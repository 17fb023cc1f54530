"""Modules that carry a mask through a network, around the layers of the variants."""

from impls._carry.masks import Carried
from impls._carry.normalization import MaskedBatchNorm1d, MaskedBatchNorm2d, MaskedBatchNorm3d
from impls._carry.pooling import (
    MaskedAvgPool1d,
    MaskedAvgPool2d,
    MaskedAvgPool3d,
    MaskedMaxPool1d,
    MaskedMaxPool2d,
    MaskedMaxPool3d,
    MaskedMean,
)
from impls._carry.sequential import MaskedSequential, Pointwise, carry
from impls._carry.shuffle import MaskedPixelShuffle, MaskedPixelUnshuffle

__all__ = [
    "Carried", "MaskedAvgPool1d", "MaskedAvgPool2d", "MaskedAvgPool3d", "MaskedBatchNorm1d",
    "MaskedBatchNorm2d", "MaskedBatchNorm3d", "MaskedMaxPool1d", "MaskedMaxPool2d",
    "MaskedMaxPool3d", "MaskedMean", "MaskedPixelShuffle", "MaskedPixelUnshuffle",
    "MaskedSequential", "Pointwise", "carry",
]  # fmt: skip
