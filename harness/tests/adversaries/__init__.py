"""Contenders that want a number without earning it, as a plug-in: none of them may get one."""

from harness.tests.adversaries.answers import ANSWERS
from harness.tests.adversaries.attack import Attack
from harness.tests.adversaries.disturbers import DISTURBERS
from harness.tests.adversaries.later import LATER

AT_IMPORT = (
    Attack("patches_when_loaded", None, "makes `torch.convolution` slower when it is loaded",
           "every plug-in is first loaded alone", r"replaces torch\.convolution before it is called"),
    Attack("flags_when_loaded", None, "flushes denormal numbers when it is loaded",
           "every plug-in is first loaded alone", "changes denormal numbers.* before it is called"),
)  # fmt: skip
ATTACKS = (*ANSWERS, *DISTURBERS, *LATER, *AT_IMPORT)
IMPLEMENTATIONS = {"plain": [a.implementation() for a in ATTACKS if a.function is not None]}
