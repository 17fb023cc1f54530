"""What sources contribute, added up in one pass over the output."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from harness.api import Shape
from impls._shared.triton_broadcast import AT_ONCE, SPANNED, Repeat, broadcast_add, spread_over


def sum_of_sources(
    terms: Mapping[Shape, Tensor], out_size: Sequence[int], repeats: Sequence[Repeat]
) -> Tensor:
    """Return the sum of `terms`, each spread over the axes that it lacks.

    More terms than the kernel takes at once are joined first, each to one that spans its axes: no
    three axes have more than three subsets of which none holds another.

    Args:
        terms: Per axes that it spans, a term with all axes: of size 1, or of the tile's.
        out_size: Spatial size of the result.
        repeats: Per axis which output of a tile stands for how many.
    """
    rank = len(out_size)
    small = {axes: term for axes, term in terms.items() if len(axes) < rank}

    def lacked(term: Tensor, axes: Sequence[int]) -> list[Repeat]:
        along = [SPANNED] * rank
        for axis in axes:
            single = term.shape[2 + axis] == 1
            along[axis] = Repeat(0, out_size[axis]) if single else repeats[axis]
        return along

    while len(small) > AT_ONCE:
        axes = min(small, key=len)
        wider = min((other for other in small if set(axes) < set(other)), key=len)
        term = small.pop(axes)
        missing = [axis for axis in wider if axis not in axes]
        small[wider] = small[wider] + spread_over(term, lacked(term, missing))
    base = terms.get(tuple(range(rank)))
    given = next(iter(terms.values()))
    plan = [
        lacked(term, [axis for axis in range(rank) if axis not in axes])
        for axes, term in small.items()
    ]
    return broadcast_add((*given.shape[:2], *out_size), base, list(small.values()), plan)
