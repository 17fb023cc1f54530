"""Print `docs/threat_model.md`: `python3 -m harness.tests.adversaries`."""

import sys

from harness.tests.adversaries import ATTACKS
from harness.tests.adversaries.attack import page

sys.stdout.write(page(ATTACKS))
