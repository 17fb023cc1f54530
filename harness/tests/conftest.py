"""What every test of the harness may rely on."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _modes_are_put_back():
    """Put torch's modes back: contests and timing processes set them for a whole process."""
    with torch.enable_grad():
        yield
    torch.set_grad_enabled(True)
