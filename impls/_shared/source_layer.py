"""What the layers over several sources share: names of the sources, channels learned late."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from harness.api import CaseError
from impls._shared.layer import ConvLayer
from impls._shared.sources import NAMES, check_presence, source_axes


def channels_per_source(in_channels: Sequence[int] | int, rank: int) -> tuple[int, ...]:
    """Return `in_channels` as a tuple with one entry per source.

    Raises:
        CaseError: another number of entries, a negative one, or no channel at all.
    """
    names = NAMES[rank]
    entries = (in_channels,) if isinstance(in_channels, int) else tuple(in_channels)
    if len(entries) != len(names):
        raise CaseError(
            f"in_channels={entries} needs {len(names)} entries: one each for {', '.join(names)}"
        )
    if min(entries) < 0 or not any(entries):
        raise CaseError(
            f"in_channels={entries} must be 0 or more, and more for one source at least"
        )
    return entries


def learned_channels(
    x: Sequence[Tensor | None], named: Mapping[str, Any], rank: int
) -> tuple[int, ...]:
    """Return the channels of every source that a call gives, by place or by name."""
    given = dict(zip(NAMES[rank], x, strict=False)) | dict(named)
    sources = [given.get(name) for name in NAMES[rank]]
    return tuple(
        0 if source is None else source.shape[-len(axes) - 1]
        for axes, source in zip(source_axes(rank), sources, strict=True)
    )


class SourceLayer(ConvLayer):
    """Mixed into a layer that computes `convolve_sources` and knows its `source_channels`."""

    rank: int
    source_channels: tuple[int, ...]

    def call_sources(self, x: Sequence[Tensor | None], size: Sequence[int] | None) -> Tensor:
        """Check which sources are given, then compute.

        Raises:
            CaseError: a source without channels is given, or one with channels is missing.
        """
        for name, source, channels in zip(NAMES[self.rank], x, self.source_channels, strict=True):
            check_presence(name, source, channels)
        return self.convolve_sources(x, size)


class TakesLine:
    """Sources over 1 spatial axis."""

    rank = 1

    def forward(
        self, line: Tensor | None = None, scalar: Tensor | None = None, *,
        size: Sequence[int] | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the output, `(N, C_out, L_out)`.

        Args:
            line, scalar: `(N, C1, L)` and `(N, C2)`.
            size: `(L,)`, required where no source tells it.
        """
        return self.call_sources((line, scalar), size)


class TakesImage:
    """Sources over 2 spatial axes."""

    rank = 2

    def forward(
        self, image: Tensor | None = None, row: Tensor | None = None,
        column: Tensor | None = None, scalar: Tensor | None = None, *,
        size: Sequence[int] | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the output, `(N, C_out, H_out, W_out)`.

        Args:
            image, row, column, scalar: `(N, C1, H, W)`, `(N, C2, H)`, `(N, C3, W)`, `(N, C4)`.
            size: `(H, W)`, required where no source tells it.
        """
        return self.call_sources((image, row, column, scalar), size)


class TakesVolume:
    """Sources over 3 spatial axes, called by the axes that they span."""

    rank = 3

    def forward(
        self, volume: Tensor | None = None, depth_height: Tensor | None = None,
        depth_width: Tensor | None = None, height_width: Tensor | None = None,
        depth: Tensor | None = None, height: Tensor | None = None,
        width: Tensor | None = None, scalar: Tensor | None = None, *,
        size: Sequence[int] | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the output, `(N, C_out, D_out, H_out, W_out)`.

        Args:
            volume, depth_height, depth_width, height_width, depth, height, width, scalar: Each
                `(N, C_i, *sizes of the axes in its name)`.
            size: `(D, H, W)`, required where no source tells it.
        """
        x = (volume, depth_height, depth_width, height_width, depth, height, width, scalar)
        return self.call_sources(x, size)
