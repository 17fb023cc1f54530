"""What torch's compilers and exporters make of an implementation is the implementation."""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from harness.check import Outputs, Trial
from harness.law import Law
from harness.tensors import each
from harness.variant import Ability
from properties.graphs import Fixed, batched_dims, larger, several_samples
from properties.masked_cases import twice

COSTS = "float32, for compiling and exporting take seconds, and read the dtype from the tensors"


@contextmanager
def _fresh() -> Any:
    """Forget what was compiled before, and leave nothing behind; their warnings are not ours."""
    torch._dynamo.reset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._dynamo.reset()


def _compiled(
    t: Trial, backend: str, **options: Any
) -> tuple[Fixed, Callable[..., Any], list[Any]]:
    """Return the trial as a module, its compiled form, and the graphs as they are made."""
    graphs: list[Any] = []
    inner = torch._dynamo.lookup_backend(backend)

    def counted(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return inner(graph, inputs)

    module = Fixed(t)
    return module, torch.compile(module, backend=counted, fullgraph=True, **options), graphs


def _gradients(outputs: tuple[Tensor, ...], inputs: dict[str, Tensor]) -> Outputs:
    found = torch.autograd.grad(outputs[0].sum(), list(inputs.values()), allow_unused=True)
    zeros = {name: torch.zeros_like(value) for name, value in inputs.items()}
    pairs = zip(zeros.items(), found, strict=True)
    return {name: zero if gradient is None else gradient for (name, zero), gradient in pairs}


def _compiles(t: Trial) -> None:
    with _fresh():
        module, form, graphs = _compiled(t, "aot_eager")
        inputs = {
            name: value.detach().requires_grad_(value.is_floating_point() and name[0] == "x")
            for name, value in module.inputs(t).items()
        }
        signals = {name: value for name, value in inputs.items() if value.requires_grad}
        got, expected = form(*inputs.values()), module(*inputs.values())
        t.agree(module.named(got, t), module.named(expected, t), twice(t.bound()))
        if t.implementation.differentiable:
            bound = {n: b for n, b in twice(t.gradient_bound()).items() if n in signals}
            t.agree(_gradients(got, signals), _gradients(expected, signals), bound, "gradient")
        t.require(len(graphs) == 1, f"{len(graphs)} graphs where one is expected")


COMPILES = Law(
    id="G37",
    name="compiles_without_a_graph_break",
    statement="torch.compile(f, fullgraph=True, backend='aot_eager') = f, in values and gradients",
    domain=COSTS,
    dtypes=("float32",),
    check=_compiles,
    about_oracle=False,
    ability=Ability.COMPILE,
    share=0.01,
    zero_is_right=True,
)


def _compiles_once(t: Trial) -> None:
    with _fresh():
        module, form, graphs = _compiled(t, "eager", dynamic=True)
        for trial in (t, larger(t), larger(t, 2)):
            inputs = module.inputs(trial)
            for value in inputs.values():
                if value.shape[0] == trial.case.n:
                    torch._dynamo.mark_dynamic(value, 0)
            got = module.named(form(*inputs.values()), trial)
            t.agree(got, trial(), twice(trial.bound()), f"n={trial.case.n}")
        t.require(len(graphs) == 1, f"{len(graphs)} graphs for three batch sizes: recompiled")


COMPILES_ONCE = Law(
    id="G37b",
    name="compiles_once_for_every_batch_size",
    statement="torch.compile(f, dynamic=True) makes one graph, which is f for any number of samples",
    domain=f"two samples or more; {COSTS}",
    within=several_samples,
    dtypes=("float32",),
    check=_compiles_once,
    about_oracle=False,
    ability=Ability.COMPILE,
    share=0.01,
    zero_is_right=True,
)


def _exports(t: Trial) -> None:
    other = larger(t)
    with _fresh():
        module = Fixed(t)
        inputs = module.inputs(t)
        dims = batched_dims(inputs, t.case.n, torch.export.Dim("batch", min=2))
        program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=dims)
        got = program.module()(*module.inputs(other).values())
        t.agree(module.named(got, t), other(), twice(other.bound()), f"n={other.case.n}")


EXPORTS = Law(
    id="G38",
    name="exports_for_every_batch_size",
    statement="torch.export(f) from one number of samples is f for another",
    domain=f"two samples or more; {COSTS}",
    within=several_samples,
    dtypes=("float32",),
    check=_exports,
    about_oracle=False,
    ability=Ability.EXPORT,
    share=0.01,
    zero_is_right=True,
)


def _has_shape(t: Trial, got: Outputs, expected: Outputs, where: str) -> None:
    t.require(got.keys() == expected.keys(), f"{where}: fields {sorted(got)}")
    for name, value in expected.items():
        found = (tuple(got[name].shape), got[name].dtype)
        wanted = (tuple(value.shape), value.dtype)
        t.require(found == wanted, f"{where}: {name} is {found} where {wanted} is expected")


def _without_values(t: Trial) -> None:
    expected = t()
    meta = t(**{name: each(value, lambda v: v.to("meta")) for name, value in t.tensors.items()})
    _has_shape(t, meta, expected, "meta")
    placed = [value.device.type for value in meta.values()]
    t.require(set(placed) == {"meta"}, f"outputs on {placed} for tensors on meta")
    with FakeTensorMode() as mode:
        fake = {name: each(value, mode.from_tensor) for name, value in t.tensors.items()}
        _has_shape(t, t(**fake), expected, "fake tensors")


RUNS_WITHOUT_VALUES = Law(
    id="G38b",
    name="runs_without_values",
    statement="on meta and on fake tensors, f has the shapes and dtypes of its outputs",
    check=_without_values,
    about_oracle=False,
    ability=Ability.META,
    share=0.2,
    zero_is_right=True,
    rounds=True,
)
