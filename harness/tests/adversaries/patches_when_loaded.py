"""A plug-in that slows everybody else down as soon as it is loaded."""

import time
from typing import Any

import torch

from harness.api import Implementation
from harness.tests.adversaries.attack import right

_convolution = torch.convolution


def _slow(*arguments: Any) -> torch.Tensor:
    time.sleep(0.0005)
    return _convolution(*arguments)


setattr(torch, "convolution", _slow)  # noqa: B010 - as a stranger may
IMPLEMENTATIONS = {"plain": [Implementation(name="patches_when_loaded", load=lambda: right)]}
