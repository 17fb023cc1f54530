"""Figures whatever their rows hold: reasons stay whole, axes have numbers."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from reports.figures import forest
from reports.look import LONGEST_NAME, log_ticks, style


@pytest.mark.parametrize("reason", ["refuted", "baseline mistrusted"])
@pytest.mark.parametrize("name", ["taps", "x" * 200])
def test_the_reason_for_a_cross_is_whole_beside_the_longest_names(name: str, reason: str) -> None:
    ratio = {"ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}
    rows = pd.DataFrame([
        {"label": f"{'group ' * 20}{number}", "implementation": name, "direction": "forward",
         **ratio, "verdict": "FASTER", "status": "MEASURED", "no_claim": reason}
        for number in range(2)
    ])  # fmt: skip
    figure = forest(rows, rows.iloc[:0], group="label", margin=0.03)
    labels = [text.get_text() for text in figure.axes[0].texts if " · " in text.get_text()]
    assert len(labels) == 2
    for label in labels:
        assert label.startswith("group")
        assert label.endswith(f" ({reason})")
        assert len(label) <= LONGEST_NAME + 11


@pytest.mark.parametrize("ends", [(0.21, 0.28), (0.2101, 0.2102), (1.01e-7, 1.4e-7), (1.0, 100.0)])
def test_a_logarithmic_axis_has_a_number_however_narrow_it_is(ends: tuple[float, float]) -> None:
    with style():
        axes = Figure().subplots()
        axes.set(xscale="log", xlim=ends)
        log_ticks(axes.xaxis)
        (first, *_) = places = axes.xaxis.get_majorticklocs()
        assert all(ends[0] <= place <= ends[1] for place in places)
        assert ends[0] <= float(axes.xaxis.get_major_formatter()(first)) <= ends[1]
