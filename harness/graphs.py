"""A call as CUDA graphs: recorded once for each set of arguments, replayed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

WARM_UP_CALLS = 3
Capture = Callable[[Callable[[Any], Any], Any], tuple[Callable[[], None], Any]]
"""Records a call on its arguments; returns what replays it, and the result that it writes."""


class Captured:
    """A call that replays graphs, one per set of arguments, so that inputs rotate.

    Args:
        call: What is recorded.
        bound: Every set of arguments that it will be called with; their memory is fixed from now
            on, and their values may change.
        capture: How it is recorded.

    Raises:
        RuntimeError: the call cannot be recorded.
    """

    def __init__(
        self, call: Callable[[Any], Any], bound: Sequence[Any], capture: Capture | None = None
    ) -> None:
        record = capture or record_graph
        self._bound = list(bound)  # held, so that an address is not another's
        self._graphs = {id(arguments): record(call, arguments) for arguments in bound}

    def __call__(self, arguments: Any) -> Any:
        """Replay the graph of these arguments; the result lies where it always does."""
        replay, result = self._graphs[id(arguments)]
        replay()
        return result

    def spoil(self) -> None:
        """Fill the results with NaN: who writes nothing returns that."""
        given = {storage_of(tensor) for tensor in _tensors(self._bound)}
        with torch.no_grad():
            for _, result in self._graphs.values():
                for tensor in _tensors(result):
                    if tensor.is_floating_point() and storage_of(tensor) not in given:
                        tensor.detach().fill_(float("nan"))


def storage_of(tensor: torch.Tensor) -> int:
    """Return where the memory of a tensor begins."""
    return tensor.untyped_storage().data_ptr()


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def record_graph(
    call: Callable[[Any], Any], arguments: Any
) -> tuple[Callable[[], None], Any]:  # fmt: skip
    """Warm up on a stream of its own, then record the call."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            call(arguments)
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(arguments)
    return graph.replay, result
