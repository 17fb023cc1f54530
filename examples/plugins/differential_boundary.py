"""stfc-sciml/DifferentialConv2d: the layers that it compares with, as methods of `boundary`."""

from dataclasses import replace

from torch.func import functional_call

from harness.api import MAKES_LAYERS, checkout, from_layer

URL = "github.com/stfc-sciml/DifferentialConv2d"
layers = checkout("DIFFCONV2D_PATH", "diff_conv2d.layers", URL)


def explicit(x, weight, bias, _, *, stride, dilation, groups, method):
    c_out, c_in, side = weight.shape[2:5]
    made = layers.ExplicitConv2dLayer(c_in * groups, c_out, side, groups, bias is not None)
    own = {k: weight[*(side // 2 - int(d) for d in k.split("__"))] for k in made.layers_by_disp}
    state = {f"layers_by_disp.{k}.weight": kernel for k, kernel in own.items()}
    state |= {f"layers_by_disp.{k}.bias": bias for k in own if bias is not None}
    return functional_call(made, state, (x,), tie_weights=False)


def mode(name, layer):
    given = {"sides": (3, 5, 7), "within": lambda case: case.with_options(method=name)}
    return from_layer(f"stfc_{name}", {2: layer}, takes=("method",), **given)


EXPLICIT = mode("explicit", layers.ExplicitConv2dLayer)
FUNCTION = replace(EXPLICIT, load=lambda: explicit, layer=None, lacks=MAKES_LAYERS)
OTHERS = [mode("partial", layers.PartConv2dLayer), mode("extrapolate", layers.ExtraConv2dLayer)]
IMPLEMENTATIONS = {"boundary": [FUNCTION, *OTHERS]}
