"""Shapes of arguments that several variants share."""

from harness.api import Arg, ConvCase, Role, Shape


def weight_shape(case: ConvCase) -> Shape:
    """Return `(C_out, C_in/groups, *K)`."""
    return case.weight_shape


def bias_shape(case: ConvCase) -> Shape | None:
    """Return `(C_out,)`, or None without bias."""
    return (case.c_out,) if case.bias else None


def input_mask_shape(case: ConvCase) -> Shape | None:
    """Return `(1|N, 1|C_in, *S)` by the options `mask_batch`, `mask_channels`; None for no mask."""
    if case.option("mask", "ones") == "none":
        return None
    batch = 1 if case.option("mask_batch", "all") == "one" else case.n
    channels = 1 if case.option("mask_channels", "all") == "one" else case.c_in
    return (batch, channels, *case.in_size)


SIGNAL = Arg(name="x", role=Role.SIGNAL, shape=lambda case: case.x_shape)
WEIGHT = Arg(name="weight", role=Role.WEIGHT, shape=weight_shape)
BIAS = Arg(name="bias", role=Role.BIAS, shape=bias_shape)
INPUT_MASK = Arg(
    name="mask",
    role=Role.MASK,
    shape=input_mask_shape,
    covers="x",
    choices=("mask_channels", "mask_batch"),
)
INPUT_MASK_FAMILIES = ("ones", "bernoulli:0.5", "box", "zeros", "checkerboard", "stripes", "real")
INPUT_MASK_SHAPES = {
    "mask_channels": ("all", "one"),
    "mask_batch": ("all", "one"),
    "mask_dtype": ("same", "bool"),
}
PADDING_MODE = {"padding_mode": ("zeros", "reflect", "replicate", "circular")}
