"""Ceilings are rates that the machine was seen to reach."""

import math

import pytest
import torch

from harness import ceilings


def test_a_rate_per_dtype_and_that_of_copying_are_measured(monkeypatch):
    monkeypatch.setitem(ceilings.COPIED_BYTES, "cpu", 2**12)
    monkeypatch.setitem(ceilings.SIDE, "cpu", 16)
    found = ceilings.measure_ceilings("cpu", ("float32", "bfloat16"))
    assert set(found) == {ceilings.COPY, "float32_flop_per_s", "bfloat16_flop_per_s"}
    assert all(rate > 0 for rate in found.values())


def test_the_rate_counts_what_is_read_and_written_and_two_operations_a_product(monkeypatch):
    monkeypatch.setattr(ceilings, "_seconds", lambda *_: 0.5)
    monkeypatch.setitem(ceilings.COPIED_BYTES, "cpu", 1000)
    monkeypatch.setitem(ceilings.SIDE, "cpu", 10)
    found = ceilings.measure_ceilings("cpu", ("float64",))
    assert found == {ceilings.COPY: 4000.0, "float64_flop_per_s": 4000.0}


def test_the_quickest_sample_counts():
    class Timer:
        times = iter([10**7, 10**7, 9_000_000, *[8_000_000, 5_000_000] * 20])

        def sample(self, call, batch):
            return next(self.times), call(batch[0])

    assert ceilings._seconds(Timer(), torch.Tensor) == 5e-3


@pytest.mark.parametrize(
    ("flops", "moved", "share"),
    [(100.0, 1.0, 0.5), (1.0, 10.0, 0.05), (0.0, 1.0, None)],
)
def test_a_share_is_of_the_lower_roof(flops, moved, share):
    found = ceilings.share_of_ceiling(
        flops, moved, 2.0, {"float32_flop_per_s": 100.0, ceilings.COPY: 100.0}, "float32"
    )
    if share is None:
        assert found is None
    else:
        assert math.isclose(found, share)
