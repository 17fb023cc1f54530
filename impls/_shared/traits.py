"""What every convolution of these claims."""

from harness.api import Trait

CONVOLUTION = frozenset(
    {
        Trait.ADDS_BIAS,
        Trait.CHANNELS_ARE_EQUAL,
        Trait.GROUPS_ARE_APART,
        Trait.HAS_NO_DIRECTION,
        Trait.ACTS_ALIKE_INSIDE,
        Trait.RANK_IS_DATA,
    }
)
