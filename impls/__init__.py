"""One folder per variant of convolution; what several need is in `_shared`.

`convert` puts the layers of a variant into a trained model. The modules with `Masked` in their
names carry a mask through a network, beside the layers that return one.
"""

from impls._carry import (
    Carried,
    MaskedAvgPool1d,
    MaskedAvgPool2d,
    MaskedAvgPool3d,
    MaskedBatchNorm1d,
    MaskedBatchNorm2d,
    MaskedBatchNorm3d,
    MaskedMaxPool1d,
    MaskedMaxPool2d,
    MaskedMaxPool3d,
    MaskedMean,
    MaskedPixelShuffle,
    MaskedPixelUnshuffle,
    MaskedSequential,
    Pointwise,
    carry,
)
from impls._convert import convert

__all__ = [
    "Carried", "MaskedAvgPool1d", "MaskedAvgPool2d", "MaskedAvgPool3d", "MaskedBatchNorm1d",
    "MaskedBatchNorm2d", "MaskedBatchNorm3d", "MaskedMaxPool1d", "MaskedMaxPool2d",
    "MaskedMaxPool3d", "MaskedMean", "MaskedPixelShuffle", "MaskedPixelUnshuffle",
    "MaskedSequential", "Pointwise", "carry", "convert",
]  # fmt: skip
