"""All that an implementation may import."""

from harness.call import call, compiled, fastest, from_layer, named_padding, per_axis
from harness.case import PADDING_MODES, CaseError, ConvCase
from harness.taps import apply_mask, correlate, pad, per_channel, taps
from harness.variant import (
    Ability,
    Arg,
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
    "PADDING_MODES", "Ability", "Arg", "CaseError", "ConvCase", "Domain", "Implementation", "Kind", "LayerForm", "Need",
    "Role", "Shape", "Trait", "Value", "Variant", "apply_mask", "call", "compiled", "correlate",
    "fastest", "from_layer", "named_padding", "pad", "per_axis", "per_channel", "taps",
]  # fmt: skip
