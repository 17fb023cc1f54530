"""Two threads that take turns, an operation each: a race that happens every time."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from torch.overrides import TorchFunctionMode

# Whoever holds a lock that the other waits for is let through: a layer may be safe by locking.
PATIENCE_S = 0.02


class _Turns:
    """Whose turn it is, among those that are not done."""

    def __init__(self, count: int) -> None:
        self.condition, self.turn, self.left = threading.Condition(), 0, set(range(count))

    def wait(self, who: int) -> None:
        with self.condition:
            self.condition.wait_for(lambda: self.turn == who, PATIENCE_S)

    def hand_on(self, who: int, *, done: bool = False) -> None:
        with self.condition:
            if done:
                self.left.discard(who)
            later = sorted(self.left, key=lambda other: (other <= who, other))
            self.turn = later[0] if later else who
            self.condition.notify_all()


class _TakesTurns(TorchFunctionMode):
    """Hands the turn on after every operation of this thread."""

    def __init__(self, turns: _Turns, who: int) -> None:
        super().__init__()
        self.turns, self.who = turns, who

    def __enter__(self) -> Self:
        self.turns.wait(self.who)
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        super().__exit__(kind, error, trace)
        self.turns.hand_on(self.who, done=True)

    def __torch_function__(
        self, function: Any, _: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") != "__get__":  # an attribute is no operation
            self.turns.hand_on(self.who)
            self.turns.wait(self.who)
        return result


def in_turns(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return what the calls return, each made in a thread of its own, operation by operation."""
    turns = _Turns(len(calls))

    def run(who: int) -> Any:
        with _TakesTurns(turns, who):
            return calls[who]()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(run, i) for i in range(len(calls))]]
