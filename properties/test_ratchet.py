"""No implementation uses more of its bound than it did on the same kind of machine."""

import pytest

from harness import ratchet
from harness.table import load_table

pytestmark = pytest.mark.thorough

TABLE = load_table()
KEPT = ratchet.load().get(ratchet.backend(), {})


@pytest.mark.parametrize("variant", TABLE.variants)
def test_errors_have_not_grown(variant):
    if not KEPT:
        pytest.skip(f"nothing is kept for {ratchet.backend()}: python3 -m harness ratchet --write")
    grown = ratchet.grown(ratchet.measure(TABLE, [variant]), KEPT)
    assert not grown, "\n".join(grown)
