"""Layers: what a module computes, and that its copies and moves compute the same."""

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import DTYPES
from harness.check import Trial, expected_dtype
from harness.law import Law
from harness.tensors import torch_dtype
from harness.variant import Ability
from properties.layer_cases import (
    evaluated,
    larger,
    layer_gradients,
    of_case,
    outputs,
    parameter_names,
    renamed,
    without_noise,
)


def _says_what_the_oracle_says(t: Trial) -> None:
    module, inputs = evaluated(t)
    got, quiet = outputs(module, inputs), without_noise(t)
    for name, value in got.items():
        t.require(value.dtype == expected_dtype(t.case), f"{name}.dtype={value.dtype}")
    t.agree(got, t.truth(**quiet), t.bound(**quiet))
    names = parameter_names(t)
    truth, bound = t.true_gradients(**quiet), t.gradient_bound()
    learnt = renamed(layer_gradients(t, module, inputs), names)
    t.agree(learnt, {n: truth[n] for n in names}, {n: bound[n] for n in names}, "gradient")


LAYER_AGREES = Law(
    id="L1",
    name="layer_agrees_with_the_oracle",
    statement="layer(x, ...) = oracle(x, w, b, ...) for its parameters w and b, gradients too",
    domain="in evaluation: noise is none",
    check=_says_what_the_oracle_says,
    of_layers=True,
    share=0.3,
)


def _dtype_follows(t: Trial) -> None:
    module, _ = evaluated(t)
    for dtype in (*DTYPES, t.case.dtype):
        made, inputs = of_case(t, replace(t.case, dtype=dtype))
        module.to(torch_dtype(dtype))
        made.eval().load_state_dict(module.state_dict())
        got = outputs(module, inputs)
        for name, value in got.items():
            t.require(
                value.dtype == torch_dtype(dtype), f"{name}.dtype={value.dtype} after .to({dtype})"
            )
        t.agree(got, outputs(made, inputs), what=f"after .to({dtype})")


DTYPE_FOLLOWS_THE_PARAMETERS = Law(
    id="G30",
    name="dtype_follows_the_parameters",
    statement="layer.to(dtype) is the layer made in that dtype, one dtype after another",
    check=_dtype_follows,
    of_layers=True,
    rounds=True,
    zero_is_right=True,
    share=0.3,
)


def _saved(module: nn.Module) -> nn.Module:
    stream = io.BytesIO()
    torch.save(module, stream)
    stream.seek(0)
    loaded: nn.Module = torch.load(stream, weights_only=False)
    return loaded


def _pickled(module: nn.Module) -> nn.Module:
    loaded: nn.Module = pickle.loads(pickle.dumps(module))
    return loaded


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy, "pickle": _pickled, "torch.save": _saved,
}  # fmt: skip


def _copies_compute_the_same(t: Trial) -> None:
    module, inputs = evaluated(t)
    size = len(pickle.dumps(module))
    expected = outputs(module, inputs)
    outputs(module, of_case(t, larger(t.case))[1])
    grown = len(pickle.dumps(module)) - size
    t.require(not grown, f"its pickle has {grown} bytes more after two calls")
    for word, copied in COPIES.items():
        other = copied(module)
        t.agree(outputs(other, inputs), expected, what=word)
        pairs = zip(module.parameters(), other.parameters(), strict=True)
        shared = any(own.numel() and own.data_ptr() == theirs.data_ptr() for own, theirs in pairs)
        t.require(not shared, f"{word} shares its parameters")


COPIES_COMPUTE_THE_SAME = Law(
    id="G40",
    name="copies_compute_the_same",
    statement="deepcopy, pickle and torch.save compute the same with parameters of their own, and "
    "a pickle does not grow with the calls before it",
    check=_copies_compute_the_same,
    of_layers=True,
    rounds=True,
    zero_is_right=True,
    share=0.2,
)


def _on(inputs: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    return tuple(v.to(device) if isinstance(v, Tensor) else v for v in inputs)


def _moves(t: Trial) -> None:
    module, inputs = evaluated(t)
    expected = outputs(module, inputs)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    shapes = outputs(module.to("meta"), _on(inputs, "meta"))
    for name, value in expected.items():
        t.require(
            shapes[name].is_meta and shapes[name].shape == value.shape,
            f"on the meta device {name}.shape={tuple(shapes[name].shape)}, not {value.shape}",
        )
    module.to_empty(device=t.device).load_state_dict(state)
    t.agree(outputs(module, inputs), expected, what="back from the meta device")
    t.agree(outputs(module.to(t.device), inputs), expected, what="moved to its own device")


MOVES_TO_META_AND_BACK = Law(
    id="G41",
    name="moves_to_meta_and_back",
    statement="after a call, .to('meta') gives the shapes, and .to_empty with its state the values",
    check=_moves,
    of_layers=True,
    ability=Ability.META,
    rounds=True,
    zero_is_right=True,
    share=0.3,
)
