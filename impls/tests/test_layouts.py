"""What PyTorch's convolution does to memory with some layouts is kept away from callers."""

import subprocess
import sys

TRAINING = """
import torch
from impls._shared.convolution import convolve
torch.set_num_threads(1)
x = torch.randn(2, 3, 4, 11).to(memory_format=torch.channels_last)
weight = torch.randn(2, 3, 1, 1, requires_grad=True)
geometry = dict(stride=(2, 1), padding=(0, 0), dilation=(1, 1), groups=1)
for _ in range(1000):
    y = convolve(x, weight, **geometry)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
"""


def test_the_gradient_of_a_strided_tap_stays_within_its_memory():
    # Beyond it, the process ends by a signal: within 1,000 calls of `torch.convolution`, always.
    ended = subprocess.run(
        [sys.executable, "-c", TRAINING], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
