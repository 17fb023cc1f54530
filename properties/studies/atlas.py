"""The border atlas: the error of filtering, ring by ring from the border inwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from harness.evidence import Evidence, Made
from properties.claims._tools import variant
from properties.studies.border import FIELDS, GRID, METHODS, chosen_kernels

SMOOTH = {"Chebyshev": 10, "spherical harmonics": 10}
"""The field of each family that is filtered."""
STACKS = ((3, 1, 100), (5, 1, 100), (7, 1, 100), (3, 4, 25))
"""Side of the kernel, layers, and how many kernels: one layer each, and a stack of four."""
RINGS = 1 + max(layers * (side // 2) for side, layers, _ in STACKS)
REFINED = (126, 252, 504)
Way = Callable[[Tensor, Tensor], Tensor]


def _boundary(method: str, x: Tensor, weight: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found: Tensor = variant("boundary").functional(x, weight, method=method, groups=x.shape[1])
    return found


def _padded(name: str, x: Tensor, weight: Tensor) -> Tensor:
    """Convolve by a variant that pads with zeros, whatever it masks being all present."""
    side = weight.shape[-1]
    ones = x.new_ones(1, 1, *x.shape[2:])
    given: Mapping[str, tuple[object, ...]] = {
        "input_masked": (x, weight, None, ones),
        "window_masked": (x, weight, None, x.new_ones(1, 1, side, side, 1, 1).expand(
            -1, -1, -1, -1, *x.shape[2:])),
        "kernel_masked": (x, weight, None, x.new_ones(side, side)),
        "partial": (x, weight, None, ones),
        "masked": (x, weight, None, ones),
        "multi_source": ((x, None, None, None), (weight, None, None, None)),
        "tile_concat": ((x, None, None, None), weight),
    }  # fmt: skip
    found = variant(name).functional(
        *given.get(name, (x, weight)), padding=side // 2, groups=x.shape[1]
    )  # fmt: skip
    return found if isinstance(found, Tensor) else found[0]


PADDED = (
    "plain", "input_masked", "window_masked", "kernel_masked", "partial", "masked",
    "multi_source", "tile_concat",
)  # fmt: skip
WAYS: dict[str, Way] = {f"boundary: {name}": partial(_boundary, name) for name in METHODS} | {
    name: partial(_padded, name) for name in PADDED
}


def ring_errors(
    field: Tensor, stack: tuple[int, int, int], dtype: torch.dtype, way: Way
) -> list[float]:
    """Return the mean error over the mean size of the truth, ring by ring and one ring beyond.

    Ring 0 holds the outermost outputs. The truth is the convolution of the whole field in float64,
    layer after layer without padding; the way sees the field without the samples beyond the edge.
    """
    side, layers, count = stack
    edge = layers * (side // 2)
    weights = [chosen_kernels(side, count, layer) for layer in range(layers)]
    truth, seen = field[None, None], field[None, None, edge:-edge, edge:-edge].to(dtype)
    for weight in weights:
        truth = torch.conv2d(truth, weight, groups=truth.shape[1])
        seen = way(seen, weight.to(dtype))
    height, width = truth.shape[2:]
    down, across = (torch.arange(n).minimum(torch.arange(n).flip(0)) for n in (height, width))
    distance = torch.minimum(down[:, None], across)
    wrong = (seen.double() - truth).abs()
    return [
        float(wrong[..., distance == ring].mean() / truth[..., distance == ring].abs().mean())
        for ring in range(edge + 1)
    ]


def rings(made: Made) -> Evidence:
    """Filter a smooth field of each family with every way that keeps the size."""
    rows: list[tuple[str | float, ...]] = []
    for (family, n), stack in itertools.product(SMOOTH.items(), STACKS):
        side, layers, _ = stack
        for name, way in WAYS.items():
            found = ring_errors(FIELDS[family](n, GRID), stack, torch.float32, way)
            finer = [
                ring_errors(FIELDS[family](n, steps + 1), (side, layers, 10), torch.float64, way)[0]
                for steps in REFINED
            ]
            order = max(math.log2(a / b) for a, b in itertools.pairwise(finer))
            cells = [float(f"{value:.2g}") for value in found]
            rows.append((
                family, f"{side}x{side}", layers, name, *cells, *["beyond"] * (RINGS - len(cells)),
                round(order, 2) + 0.0,
            ))  # fmt: skip
    named = " and ".join(f"{family} n = {n}" for family, n in SMOOTH.items())
    return Evidence(
        name="border_atlas",
        title="Border atlas, ring by ring",
        about=(
            f"Error of filtering by distance from the border: ring 0 is the outermost line of "
            f"outputs. Mean absolute error over the mean size of the truth on that ring, so that 1 "
            f"is an error as large as the value; float32, normal kernels, {named}, {GRID}x{GRID} "
            f"samples that are known beyond the edge. The last ring of a line is the first that no "
            f"window reaches across the edge from: what is left there is rounding. Masks are all "
            f"present, other sources absent. Order: the largest power of the spacing with which the "
            f"error of ring 0 shrank in float64 on grids of {', '.join(map(str, REFINED))} steps."
        ),
        made=made,
        columns=(
            "field", "kernel", "layers", "way", *(f"ring {ring}" for ring in range(RINGS)), "order",
        ),
        rows=tuple(rows),
    )  # fmt: skip
