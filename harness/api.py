"""All that an implementation may import."""

from harness.call import call, compiled, fastest, named_padding, per_axis
from harness.case import PADDING_MODES, CaseError, ConvCase
from harness.checkout import checkout
from harness.layers import MAKES_LAYERS, from_layer, name_arguments
from harness.taps import apply_mask, correlate, pad, per_channel, taps
from harness.variant import (
    Ability,
    Arg,
    Cost,
    Domain,
    Implementation,
    Kind,
    LayerForm,
    Need,
    Role,
    Shape,
    Trait,
    Value,
    Variant,
)

__all__ = [
    "MAKES_LAYERS", "PADDING_MODES", "Ability", "Arg", "CaseError", "ConvCase", "Cost", "Domain",
    "Implementation", "Kind", "LayerForm", "Need", "Role", "Shape", "Trait", "Value", "Variant", "apply_mask",
    "call", "checkout", "compiled", "correlate", "fastest", "from_layer", "name_arguments",
    "named_padding", "pad", "per_axis", "per_channel", "taps",
]  # fmt: skip
