"""Count what a call costs, without a clock: operators, floating-point operations, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(slots=True)
class Count:
    """What was counted.

    Args:
        kernels: Operators that compute something; views do not.
        flops: Two per multiply-add of products and convolutions.
        peak_bytes: The most memory that was held at once after any operator, that of `given`
            tensors left out.
        moved_bytes: What these operators read and write, each tensor once per operator.
    """

    kernels: int = 0
    flops: int = 0
    peak_bytes: int = 0
    moved_bytes: int = 0


@dataclass(slots=True)
class _Held:
    """Storages that are alive, by address; weak references keep an address from being reused."""

    known: dict[int, tuple[StorageWeakRef, int]] = field(default_factory=dict)

    def add(self, tensor: Tensor, size: int) -> None:
        """Watch the storage of `tensor`, unless it is known."""
        reference = StorageWeakRef(tensor.untyped_storage())
        self.known.setdefault(reference.cdata, (reference, size))

    def total(self) -> int:
        """Forget what was freed; return the bytes of the rest."""
        dead = [address for address, (reference, _) in self.known.items() if reference.expired()]
        for address in dead:
            del self.known[address]
        return sum(size for _, size in self.known.values())


class Meter(TorchDispatchMode):
    """Counts every operator that is called inside of it."""

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = Count()
        self._held = _Held()
        for tensor in given:
            self._held.add(tensor, 0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the first call in a process imports torch's compiler, for seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        """Run `func` and count it."""
        del types
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count, packet = self.count, func._overloadpacket
        if not func.is_view:
            count.kernels += 1
            moved = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            count.moved_bytes += sum(t.numel() * t.element_size() for t in moved)
        if packet in _flops():
            count.flops += _flops()[packet](*args, **kwargs, out_val=result)
        # what died since the last operator goes first: its address may serve again
        self._held.total()
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._held.add(tensor, tensor.untyped_storage().nbytes())
        count.peak_bytes = max(count.peak_bytes, self._held.total())
        return result


def measure(function: Callable[[], Any], given: Iterable[Tensor] = ()) -> Count:
    """Return what a call of `function` counts, without a gradient; `given` tensors are free."""
    meter = Meter(given)
    with torch.no_grad(), meter:
        function()
    return meter.count


class SavedBytes:
    """Sums the memory that is kept for a backward pass, other than that of `given` tensors."""

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        self._given = {tensor.untyped_storage()._cdata for tensor in given}
        self._kept: dict[int, Tensor] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept)

    def _pack(self, tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in self._given:
            self._kept[address] = tensor.detach()
        return tensor

    def __enter__(self) -> Self:
        """Watch what is saved."""
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Watch no longer."""
        self._hooks.__exit__(kind, error, trace)

    @property
    def total(self) -> int:
        """Bytes of every storage that is kept, each once."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())


@cache
def _flops() -> Mapping[Any, Callable[..., int]]:
    """Return what counts the operations of an operator; loaded late, since it loads Triton."""
    from torch.utils.flop_counter import conv_flop_count, flop_registry

    def of_onednn(x: Tensor, weight: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
        return conv_flop_count(list(x.shape), list(weight.shape), list(out_val.shape))

    return {**flop_registry, torch.ops.aten.mkldnn_convolution: of_onednn}
