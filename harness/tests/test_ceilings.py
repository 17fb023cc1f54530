"""Ceilings are rates that the machine was seen to reach."""

import torch

from harness import ceilings
from harness.proof import Common


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


def test_they_are_measured_in_a_process_set_up_as_the_timed_ones(monkeypatch, tmp_path):
    asked: list[object] = []
    monkeypatch.setattr(ceilings.torch, "set_num_threads", lambda n: asked.append(("threads", n)))
    monkeypatch.setattr(ceilings.os, "sched_setaffinity", lambda _, where: asked.append(where))
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda *words: {str(words): 1.0})
    common = Common(plugins=(), device="cpu", threads=3, answers=tmp_path)
    measure = ceilings.session(common, None)
    assert measure(ceilings.Asked(("float32",), (1, 2))) == {"('cpu', ('float32',))": 1.0}
    assert asked == [("threads", 3), (1, 2)]
    measure(ceilings.Asked(("float32",), ()))
    assert len(asked) == 2
