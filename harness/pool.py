"""The arguments of timed calls: other values for every block, looked after between the calls."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import torch

from harness.proof import Call
from harness.surroundings import left_on
from harness.tensors import each, leaves
from harness.variant import Role, Value

POOL_BYTES = 16 * 2**20
LARGEST_POOL = 8


class TensorPool:
    """Tensors of one case several times over, other in their signals from block to block.

    Whoever remembers an answer by the address or the shape of its arguments gives a stale one. The
    first set holds in the last block the values for which the right answer is known; the last call
    of every batch is on it.
    """

    def __init__(self, call: Call, tensors: dict[str, Value]) -> None:
        self.first = tensors
        self._signals = {k for k, v in call.roles.items() if v is Role.SIGNAL}
        self._proved = {k: v.clone() for k, v in leaves(tensors).items()}
        size = sum(t.untyped_storage().nbytes() for t in leaves(tensors).values())
        count = max(2, min(LARGEST_POOL, POOL_BYTES // max(size, 1)))
        self.sets = [tensors] + [_copied(tensors) for _ in range(count - 1)]
        self.bound = [call.bind(entry) for entry in self.sets]
        self._places = [_places(entry) for entry in self.sets]
        self._shifts = [0] * count
        self._versions: list[list[int]] = []
        self._order = random.Random(0)

    def batch(self, count: int) -> list[Any]:
        """Return the arguments of `count` calls, the last of them on the first set."""
        return list(islice(cycle(self.bound), count))[::-1]

    def places(self, batch: Sequence[Any], number: int) -> list[int]:
        """Return which calls of a batch are on set `number`."""
        return [i for i, arguments in enumerate(batch) if arguments is self.bound[number]]

    def refresh(self, block: int, *, proved: bool) -> None:
        """Write values that no block before held, or the proved ones, into the first set."""
        with torch.no_grad():
            for number, entry in enumerate(self.sets):
                # Not shifted are only the proved values, no shift comes twice.
                self._shifts[number] = number + (0 if proved else (block + 1) * len(self.sets))
                for name, tensor in leaves(entry).items():
                    if self._is_signal(name):
                        tensor.copy_(self._values(name, number))
        self._versions = [_versions(entry) for entry in self.sets]

    def harm(self, *, everywhere: bool) -> str:
        """Return what calls since `refresh` did to their arguments; empty for nothing.

        Versions can be bypassed, so contents are looked at: of one set, whichever it is, or of all,
        without which whoever comes next may be blamed for another's harm.
        """
        chosen = self._order.randrange(len(self.sets))
        for number, entry in enumerate(self.sets):
            known = leaves(entry)
            if _places(entry) != self._places[number]:
                return "moves its arguments in memory"
            for name, now, then in zip(
                known, _versions(entry), self._versions[number], strict=True
            ):
                if now != then:
                    return f"changes its argument {name}"
            if everywhere or number == chosen:
                for name, tensor in known.items():
                    if not _equal(tensor, self._values(name, number)):
                        return f"changes its argument {name} past its version counter"
        for arguments, _ in self.bound:
            given = leaves({str(i): value for i, value in enumerate(arguments)})
            for tensor in given.values():
                if left := left_on(tensor):
                    return f"leaves {left} on an argument"
        return ""

    def _is_signal(self, name: str) -> bool:
        return name.split("[", maxsplit=1)[0] in self._signals

    def _values(self, name: str, number: int) -> torch.Tensor:
        values, shift = self._proved[name], self._shifts[number]
        return values.roll(shift) if shift and values.numel() and self._is_signal(name) else values


def _equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.equal(left, right) or torch.equal(left.nan_to_num(), right.nan_to_num())


def _versions(tensors: Mapping[str, Value]) -> list[int]:
    return [tensor._version for tensor in leaves(tensors).values()]


def _places(tensors: Mapping[str, Value]) -> list[tuple[Any, ...]]:
    return [(t.data_ptr(), t.size(), t.stride(), t.dtype) for t in leaves(tensors).values()]


def _copied(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return copies that keep layout and gaps."""

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        fresh = torch.empty_strided(
            tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
        return fresh.copy_(tensor)

    return {name: each(value, copy) for name, value in tensors.items()}
