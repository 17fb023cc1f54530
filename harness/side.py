"""One side of a duel between two checkouts: a process that imports one, and does as it is told.

`harness.duel` runs this file as a script, `side.py CHECKOUT CLOCK DEVICE THREADS [PLUGIN]...`, the same lines
and the same clock for both sides, so that they differ by what the checkouts hold. Of a checkout it
asks for no more than `load_table`, `ConvCase.parse` and `Variant.call_keywords`: tensors come from
the other end. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Side:
    """What a process of one checkout holds: the table, the clock, and what it times at present."""

    def __init__(
        self, checkout: str, clock_file: str, device: str, threads: str, *plugins: str
    ) -> None:  # fmt: skip
        sys.path.insert(0, checkout)
        import torch

        import harness.table

        origin = Path(harness.table.__file__).resolve()
        if not origin.is_relative_to(Path(checkout).resolve()):
            raise ImportError(f"the harness comes from {origin}, outside of {checkout}")
        torch.set_num_threads(int(threads))
        self._torch, self._device = torch, device
        self._table = harness.table.load_table(plugins)
        if failed := [text for text in self._table.failures if text.startswith("plug-in ")]:
            raise ImportError("; ".join(failed))
        self._clock = _load("convharness_clock", clock_file)
        if device != "cpu":  # the events' clock is imported by name: ours, for both sides
            sys.modules["harness.clock"] = harness.clock = self._clock  # type: ignore[attr-defined]
            _load("harness.cuda_clock", str(Path(clock_file).with_name("cuda_clock.py")))
        self._timer = self._clock.make_clock(device)
        self._timer.burn_in(0.25)
        self._call: Callable[[Any], Any] = lambda _: None

    def prepare(
        self, variant: str, implementation: str, case: str, inputs: str, result: str
    ) -> dict[str, Any]:
        """Load an implementation, call it on `inputs`, save its `result`, count a sample's calls."""
        from harness.case import ConvCase

        torch, held = self._torch, self._table.variant(variant)
        posed = torch.load(inputs, weights_only=True, map_location=self._device)
        function = self._table.implementation(held, implementation).load()
        keywords = held.call_keywords(ConvCase.parse(case))
        torch.set_grad_enabled(posed["dy"] is not None)
        self._call = _called(function, posed, keywords)
        found = self._call(None)
        detached = {k: [v if v is None else v.detach() for v in f] for k, f in found.items()}
        torch.save(detached, result)
        calls = self._clock.calibrate(self._timer, self._call, lambda count: [None] * count)
        return {"calls": calls}

    def sample(self, calls: int) -> dict[str, Any]:
        """Time so many calls, after one that is not timed: who has slept is cold."""
        self._call(None)
        elapsed, _ = self._timer.sample(self._call, [None] * calls)
        return {"ns": elapsed}


def _called(
    function: Callable[..., Any], posed: Mapping[str, Any], keywords: Mapping[str, Any]
) -> Callable[[Any], dict[str, list[Any]]]:
    """Return the call that is timed: outputs alone, or outputs and gradients."""
    import torch

    arguments, dy, inputs = list(posed["tensors"]), posed["dy"], []
    if dy is not None:
        for place in posed["differentiable"]:
            for tensor in _tensors(arguments[place]):
                inputs.append(tensor.requires_grad_())

    def call(_: Any) -> dict[str, list[Any]]:
        found = function(*arguments, **keywords)
        outputs = _tensors(found)
        if dy is None:
            return {"outputs": outputs, "gradients": []}
        gradients = torch.autograd.grad(outputs[0], inputs, dy, allow_unused=True)
        return {"outputs": outputs, "gradients": [*gradients]}

    return call


def _tensors(value: Any) -> list[Any]:
    """Return the tensors that an argument or a result holds."""
    entries = value if isinstance(value, tuple | list) else [value]
    return [entry for entry in entries if entry is not None]


def _load(name: str, path: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main(arguments: Sequence[str]) -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anybody prints is no answer

    def tell(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    def attempt(work: Callable[[], dict[str, Any]]) -> None:
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 - an old checkout may raise anything at all
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:600]}
        tell(answer)

    sides: list[Side] = []

    def start() -> dict[str, Any]:
        sides.append(Side(*arguments))
        return {}

    attempt(start)
    for line in sys.stdin:
        request = json.loads(line)
        work = getattr(sides[0], request.pop("do"))
        attempt(lambda work=work, request=request: work(**request))  # type: ignore[misc]


if __name__ == "__main__":
    main(sys.argv[1:])
