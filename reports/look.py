"""The look of every figure: colours, marks, sizes.

Colours are those of `PALETTE`; the page swaps them for its own style variables, so that a figure
follows dark and light. Verdicts differ in marker shape too, never in colour alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

PALETTE = {
    "ink": "#1b1d21",
    "quiet": "#63676e",
    "grid": "#d9dbdf",
    "band": "#ece6d3",
    "faster": "#0068a8",
    "slower": "#b84a00",
    "same": "#00745a",
    "unresolved": "#7a7e85",
}
MARKERS = {"FASTER": "<", "SLOWER": ">", "SAME": "s", "UNRESOLVED": "o", "": "x"}
WIDTH = 9.6
LONGEST_NAME = 34
_SET: ContextVar[bool] = ContextVar("_SET", default=False)


@contextmanager
def style() -> Iterator[None]:
    """Set the look of every figure for the duration of a block; globals return to what they were.

    Within a block of its own it costs nothing.
    """
    if _SET.get():
        yield
        return
    ink, quiet, grid = PALETTE["ink"], PALETTE["quiet"], PALETTE["grid"]
    look: Any = {
        "axes.edgecolor": grid,
        "axes.facecolor": "none",
        "axes.labelcolor": quiet,
        "axes.titlecolor": ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "font.family": ["DejaVu Sans"],
        "grid.color": grid,
        "grid.linewidth": 0.6,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "text.color": ink,
        # Names come from strangers: a dollar sign is a dollar sign.
        "text.parse_math": False,
        "xtick.color": quiet,
        "ytick.color": ink,
    }
    with (
        mpl.rc_context(),
        sns.plotting_context("paper"),
        sns.axes_style("whitegrid", rc=look),
        mpl.rc_context(look),
        warnings.catch_warnings(),
    ):
        # Text stays text: the browser has the glyphs that the font used for measuring may lack.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        token = _SET.set(True)
        try:
            yield
        finally:
            _SET.reset(token)


def plain_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers, and none between them."""
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def log_ticks(axis: Axis) -> None:
    """Place plain ticks on a logarithmic axis whose ends are set: at least three, where they fit."""
    low, high = sorted(axis.get_view_interval())
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)):
        found = [10.0**power * step for power in powers for step in steps]
        chosen = [tick for tick in found if low <= tick <= high]
        if len(chosen) >= 3:
            break
    axis.set_major_locator(FixedLocator(chosen or [_between(low, high)]))
    plain_ticks(axis)


def _between(low: float, high: float) -> float:
    """Return a number of few digits near the geometric mean of two, and between them."""
    middle = math.sqrt(low * high)
    found = (float(f"{middle:.{digits}g}") for digits in range(1, 7))
    return next((number for number in found if low <= number <= high), middle)


def title(axes: Axes, text: str, **look: Any) -> None:
    """Set a title where it stands: looking for a free place costs more than all the rest."""
    axes.set_title(text, y=1.0, **look)


def lines_named(axes: Axes, places: Iterable[float], names: Iterable[str], **look: Any) -> None:
    """Write names left of the axes at heights of the data; ticks would take ten times as long."""
    width = axes.get_position().width * WIDTH
    for place, name in zip(places, names, strict=True):
        axes.text(
            -0.05 / width, place, name, transform=axes.get_yaxis_transform(), ha="right",
            va="center", **look,
        )  # fmt: skip


def legible(colour: Sequence[float]) -> str:
    """Return black or white, whichever has the higher contrast (as WCAG defines it) on a colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#fefefe"


def crossed(name: str, why: str, longest: int = LONGEST_NAME) -> str:
    """Return `name` crossed out for the reason `why`, which stays whole however long the name is."""
    return f"✗ {clipped([name], max(8, longest - len(why) - 5))[0]} ({why})" if why else name


def clipped(names: Iterable[str], longest: int = LONGEST_NAME) -> list[str]:
    """Return names short enough to leave room for the figure, without what no font can print."""
    shown = ("".join(c if c.isprintable() else "\ufffd" for c in name) for name in names)
    return [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in shown]
