"""A plug-in that changes a flag of the processor as soon as it is loaded."""

import torch

from harness.api import Implementation
from harness.tests.adversaries.attack import right

torch.set_flush_denormal(True)
IMPLEMENTATIONS = {"plain": [Implementation(name="flags_when_loaded", load=lambda: right)]}
