"""Claims about time, decided by the clock, and about the memory of a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from harness.claim import Answer, Judgement, claim, decide, decide_on
from harness.comparison import MARGIN, Comparison, Speed
from harness.contest import Entry, compete, figures, real
from harness.variant import Need
from properties.claims._tools import DIFF_CONV, MASKED_TORCH, MULTI_SOURCE, counted, variant

SPEED_TARGET = 1 / 1.4, 1 / 1.2
"""Ratios of time of what runs 20 to 40 % faster."""
MEMORY_PRICE = 1.5, 2.0
SHAPES = {"small": (2, 8, 16), "large": (2, 32, 64)}
"""Batch, channels and side of the image, by name."""


def _step(layer: nn.Module, inputs: tuple[Any, ...], *, training: bool) -> Callable[[], None]:
    def forward() -> Any:
        y = layer(*inputs)
        return y[0] if isinstance(y, tuple) else y

    def infer() -> None:
        with torch.no_grad():
            forward()

    def train() -> None:
        layer.zero_grad()
        forward().sum().backward()

    return train if training else infer


def _unpack(case: str) -> tuple[int, int, int, bool]:
    """Read a case, e.g. `small forward` or `large training`."""
    size, _, direction = case.partition(" ")
    return *SHAPES[size], direction == "training"


def sources(case: str, device: str) -> dict[str, Callable[[], None]]:
    """Make the tiled layer and the layer per source, both as published."""
    n, channels, side, training = _unpack(case)
    shapes = (n, channels, side, side), (n, channels, side), (n, channels, side), (n, channels)
    inputs = tuple(torch.randn(shape, device=device) for shape in shapes)
    common = ((channels,) * 4, channels, 3)
    tiled = variant("tile_concat").TileConcatConv2d(*common, implementation="concatenated")
    several = variant("multi_source").MultiSourceConv2d(*common, implementation="one_per_source")
    layers = {"tile_concat": tiled, "multi_source": several}
    return {k: _step(v.to(device), inputs, training=training) for k, v in layers.items()}


def maskless(case: str, device: str) -> dict[str, Callable[[], None]]:
    """Make Conv2d and MaskedConv2d, which is given no mask."""
    n, channels, side, training = _unpack(case)
    inputs = (torch.randn(n, channels, side, side, device=device),)
    layers = {
        "Conv2d": nn.Conv2d(channels, channels, 3, padding=1),
        "MaskedConv2d": variant("masked").MaskedConv2d(channels, channels, 3, padding=1),
    }
    return {k: _step(v.to(device), inputs, training=training) for k, v in layers.items()}


def targets(case: str, device: str) -> dict[str, Callable[[], None]]:
    """Make the layer optimised for memory and the one optimised for speed."""
    n, channels, side, training = _unpack(case)
    inputs = (torch.randn(n, channels, side, side, device=device),)
    layers = {
        target: variant("diff").DiffConv2d(
            channels, channels, 3, implementation=f"transformed_kernels_{target}"
        )
        for target in ("memory", "speed")
    }
    return {k: _step(v.to(device), inputs, training=training) for k, v in layers.items()}


def _entries(make: str, device: str = "cpu") -> list[Entry]:
    return [
        Entry(f"{__name__}:{make}", f"{size} {direction}", device)
        for size in SHAPES
        for direction in ("forward", "training")
    ]


def _is_faster(row: Comparison) -> bool | None:
    return None if row.verdict is Speed.UNRESOLVED else row.verdict is Speed.FASTER


def _is_no_slower(row: Comparison) -> bool | None:
    """Judge one side alone: how much faster it may be is not asked."""
    if row.ratio_high <= 1 + MARGIN:
        return True
    return False if row.verdict is Speed.SLOWER else None


def _by_size(make: str, holds: Callable[[Comparison], bool | None]) -> Judgement:
    """Judge what `holds` says of a row (None: it cannot tell), on large layers and on small."""
    rows = compete(_entries(make))
    large, small = (
        _all([holds(row) for row in real(rows) if row.case.startswith(size)])
        for size in ("large", "small")
    )
    if large is None or (large and small is None):
        return Judgement(answer=Answer.UNRESOLVED, witness=figures(rows))
    return decide_on(large, bool(small), figures(rows))


def _all(answers: list[bool | None]) -> bool | None:
    if False in answers:
        return False
    return None if None in answers else True


@claim(
    "003.14", MULTI_SOURCE, "Multi-source convolution is faster than tiling and concatenating.",
    Answer.TRUE_ON, timed=True, domain="layers whose arithmetic outweighs four calls instead of one",
)  # fmt: skip
def sources_are_faster() -> Judgement:
    """Time both as published, on small and on large layers."""
    return _by_size("sources", _is_faster)


@claim(
    "000.14", MASKED_TORCH, "Without a mask MaskedConv is as fast as a regular layer.",
    Answer.TRUE_ON, timed=True, domain="layers that outweigh the check of a call's arguments",
)  # fmt: skip
def no_mask_is_as_fast() -> Judgement:
    """Time both on small and on large layers."""
    return _by_size("maskless", _is_no_slower)


def _speed_target(device: str) -> Judgement:
    """Judge whether every interval lies within the target; one beyond it is enough to deny."""
    rows, (least, most) = compete(_entries("targets", device)), SPEED_TARGET
    within = _all([
        False if row.ratio_low > most or row.ratio_high < least
        else (least <= row.ratio_low and row.ratio_high <= most) or None
        for row in real(rows)
    ])  # fmt: skip
    if within is None:
        return Judgement(answer=Answer.UNRESOLVED, witness=figures(rows))
    return decide(within, figures(rows))


@claim(
    "004.18", DIFF_CONV, "On a CPU, too, optimising for speed makes it 20 to 40 % faster.",
    Answer.FALSE, timed=True,
)  # fmt: skip
def speed_target_on_a_cpu() -> Judgement:
    """Time both targets."""
    return _speed_target("cpu")


@claim(
    "004.19", DIFF_CONV, "Optimising for speed makes it 20 to 40 % faster on a GPU.",
    Answer.WAITS, timed=True, needs=frozenset({Need.CUDA}),
)  # fmt: skip
def speed_target_on_a_gpu() -> Judgement:
    """Time both targets."""
    return _speed_target("cuda")


def _memory_price(ratios: dict[str, float]) -> Judgement:
    least, most = MEMORY_PRICE
    words = ", ".join(f"{size} {ratio:.2f}" for size, ratio in ratios.items())
    return decide(
        all(least <= ratio <= most for ratio in ratios.values()),
        f"peak of a training step over that optimised for memory: {words}",
    )


@claim(
    "004.20", DIFF_CONV, "Optimising for speed costs 50 to 100 % more memory on a GPU.",
    Answer.WAITS, needs=frozenset({Need.CUDA}),
)  # fmt: skip
def memory_price_on_a_gpu() -> Judgement:
    """Compare the peaks of a training step."""
    ratios = {}
    for size in SHAPES:
        peaks = {}
        for target, step in targets(f"{size} training", "cuda").items():
            step()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            torch.cuda.synchronize()
            peaks[target] = torch.cuda.max_memory_allocated() - before
        ratios[size] = peaks["speed"] / peaks["memory"]
    return _memory_price(ratios)


@claim(
    "004.21", DIFF_CONV, "On a CPU, too, optimising for speed costs 50 to 100 % more memory.",
    Answer.FALSE,
)  # fmt: skip
def memory_price_on_a_cpu() -> Judgement:
    """Compare the peaks of a training step, as counted."""
    ratios = {}
    for size in SHAPES:
        peaks = [counted(step).peak_bytes for step in targets(f"{size} training", "cpu").values()]
        ratios[size] = peaks[1] / peaks[0]
    return _memory_price(ratios)
