"""Layers of real networks as benchmark cases. The list is frozen: speed is judged on it."""

from collections.abc import Mapping

from harness.api import ConvCase

_LAYERS = {
    # 2D: ResNet (He et al. 2016), U-Net (Ronneberger et al. 2015), the partial-convolution U-Net
    # (Liu et al. 2018), PixelCNN (van den Oord et al. 2016), MobileNet (Howard et al. 2017)
    "resnet50_stem": "n1 c3>64 i224x224 k7x7 s2x2 p3x3",
    "resnet50_conv2": "n1 c64>64 i56x56 k3x3 p1x1",
    "resnet50_conv2_expand": "n1 c64>256 i56x56 k1x1",
    "resnet50_conv3_down": "n1 c128>128 i56x56 k3x3 s2x2 p1x1",
    "resnet50_conv5": "n1 c512>512 i7x7 k3x3 p1x1",
    "resnet20_conv1": "n1 c16>16 i32x32 k3x3 p1x1",
    "unet_first": "n1 c3>32 i64x64 k3x3 p1x1",
    "unet_encoder": "n1 c32>64 i32x32 k3x3 p1x1",
    "unet_decoder": "n1 c128>64 i64x64 k3x3 p1x1",
    "unet_bottleneck_8x8": "n1 c64>64 i8x8 k3x3 p1x1",
    "inpainting_encoder": "n1 c64>128 i128x128 k5x5 s2x2 p2x2",
    "pixelcnn_first": "n1 c3>64 i32x32 k7x7 p3x3",
    "pixelcnn_layer": "n1 c64>64 i16x16 k3x3 p1x1",
    "mobilenet_depthwise": "n1 c128>128 i28x28 k3x3 p1x1 g128",
    # 3D: 3D U-Net (Cicek et al. 2016)
    "unet3d_first": "n1 c1>16 i16x32x32 k3x3x3 p1x1x1",
    "unet3d_layer": "n1 c32>32 i16x32x32 k3x3x3 p1x1x1",
    "unet3d_bottleneck": "n1 c32>32 i4x8x8 k3x3x3 p1x1x1",
    # 1D: text CNN (Kim 2014) and WaveNet (van den Oord et al. 2016)
    "text_cnn": "n1 c128>128 i128 k5 p2",
    "wavenet_layer": "n1 c32>32 i2048 k3 p4 d4",
}
QUICK = ("unet_first", "unet_bottleneck_8x8", "resnet20_conv1", "unet3d_bottleneck", "text_cnn")


def network_cases(same_size: bool = False, **options: str) -> dict[str, str]:
    """Return `name -> descriptor` of every layer, float32 with normal values.

    Args:
        same_size: Leave out layers whose padding is not `dilation * (kernel_size - 1) / 2`.
        options: Options of the variant, e.g. `mask="bernoulli:0.5"`.
    """
    cases: Mapping[str, ConvCase] = {
        name: ConvCase.parse(f"{line} float32 contiguous real seed0").with_options(**options)
        for name, line in _LAYERS.items()
    }
    return {
        name: str(case)
        for name, case in cases.items()
        if not same_size
        or all(f == 2 * p + 1 for f, p in zip(case.receptive_field, case.padding, strict=True))
    }
