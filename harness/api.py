"""All that an implementation may import."""

from harness.call import Declined, call, compiled, named_padding, per_axis
from harness.case import PADDING_MODES, CaseError, ConvCase
from harness.checkout import checkout
from harness.explanation import Explained, Explanation, Inquiry, explain
from harness.layers import MAKES_LAYERS, from_layer, name_arguments
from harness.selection import fastest
from harness.single import batch_of_one, sample_of
from harness.taps import apply_mask, correlate, pad, per_channel, taps
from harness.variant import (
    Ability,
    Arg,
    Build,
    BuildError,
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
    "MAKES_LAYERS", "PADDING_MODES", "Ability", "Arg", "Build", "BuildError", "CaseError", "ConvCase", "Cost",
    "Declined", "Domain", "Explained", "Explanation", "Implementation", "Inquiry", "Kind", "LayerForm", "Need", "Role",
    "Shape", "Trait", "Value", "Variant", "apply_mask", "batch_of_one", "call", "checkout",
    "compiled", "correlate", "explain", "fastest", "from_layer", "name_arguments", "named_padding",
    "pad", "per_axis", "per_channel", "sample_of", "taps",
]  # fmt: skip
