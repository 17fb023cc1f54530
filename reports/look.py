"""The look of every figure: colours, marks, sizes.

Colours are those of `PALETTE`; the page swaps them for its own style variables, so that a figure
follows dark and light. Verdicts differ in marker shape too, never in colour alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, NullFormatter

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


@contextmanager
def style() -> Iterator[None]:
    """Set the look of every figure for the duration of a block; globals return to what they were."""
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
        yield


def plain_ticks(axis: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers: markup stays unparsed here."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def clipped(names: Iterable[str], longest: int = LONGEST_NAME) -> list[str]:
    """Return names short enough to leave room for the figure, without what no font can print."""
    shown = ("".join(c if c.isprintable() else "\ufffd" for c in name) for name in names)
    return [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in shown]
