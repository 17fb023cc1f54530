"""stfc-sciml/DifferentialConv2d: its function and layer as implementations of `diff`."""

from dataclasses import replace

from harness.api import checkout, from_layer

URL = "github.com/stfc-sciml/DifferentialConv2d"
layers = checkout("DIFFCONV2D_PATH", "diff_conv2d.layers", URL)
STATE = [f"{part}_layer.{word}" for part in ("inter", "edge") for word in ("weight", "bias")]


def function(x, weight, _, edge, __, *, stride, dilation, groups, **options):  # it has no bias
    conv = layers.DiffConv2d(weight.shape[-1]).conv2d
    return conv(x, weight, groups, edge_kernel=edge, **options)


def mode(name, edge, changes, **options):
    return from_layer(
        f"stfc_{name}", {2: layers.DiffConv2dLayer}, state=STATE, train_edge_kernel=edge,
        takes=("keep_img_grad_at_invalid", "optimized_for"), sides=(3, 5, 7),
        within=lambda case: replace(case, **changes).with_options(degree=None, **options),
    )  # fmt: skip


SINGLE, YES = {"dtype": "float32"}, {"edge_kernel": "yes"}  # the function tells of other dtypes
FUNCTION = replace(mode("function", False, {"bias": False}), load=lambda: function, layer=None)
LAYERS = [mode("layer", False, SINGLE, edge_kernel=None), mode("edge_layer", True, SINGLE, **YES),
          mode("edge_layer_speed", True, SINGLE, **YES, optimized_for="speed")]  # fmt: skip
IMPLEMENTATIONS = {"diff": [FUNCTION, *LAYERS]}
