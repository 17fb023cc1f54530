"""Every layer of every variant: parameters, state, copies, threads, dtypes, lazy forms."""

import copy
import importlib
import io
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from types import FunctionType

import pytest
import torch
from torch import nn

from harness.case import CaseError
from harness.table import load_table
from harness.variant import Need

TABLE = load_table()
CHANNELS, FILTERS, GROUPS = 4, 6, 2
PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZE, OTHER_SIZE = (9, 8, 7), (7, 9, 8)


def _tap_mask(rank):
    return {"kernel_mask": torch.arange(3**rank).view((3,) * rank) % 2 == 0}


# The first configuration of a variant has the parameters of torch's layer, where it has any.
CONFIGURATIONS = {
    "kernel_masked": (_tap_mask, lambda rank: {**_tap_mask(rank), "bias_where": "support"}),
    "partial": ({}, {"multi_channel": False}),
    "masked": ({}, {"apply_mask": True}),
    "diff": ({}, {"train_edge_kernel": True}, {"keep_img_grad_at_invalid": False, "degree": 1}),
    "boundary": tuple(
        {"method": method}
        for method in (
            "replicate", "zeros", "reflect", "circular", "extrapolate", "random", "partial",
            "explicit", "diff",
        )
    ),
}  # fmt: skip
DRAWS_NOISE = {"method": "random"}


def _classes(lazy):
    """Yield `(variant, rank, class)` of every layer that a variant's package has."""
    for name in TABLE.variants:
        for word, value in vars(importlib.import_module(f"impls.{name}")).items():
            match = re.fullmatch(r"(Lazy)?\w+Conv([123])d", word)
            if match and bool(match[1]) == lazy:
                yield name, int(match[2]), value


def _cells(lazy=False, every_configuration=True):
    for name, rank, cls in _classes(lazy):
        configurations = CONFIGURATIONS.get(name, ({},))
        for given in configurations if every_configuration else configurations[:1]:
            options = given(rank) if callable(given) else given
            label = "-".join(f"{k}={v}" for k, v in options.items() if k != "kernel_mask")
            yield pytest.param(
                name, rank, cls, options, id="-".join(filter(None, (cls.__name__, label)))
            )


each_layer = pytest.mark.parametrize(("name", "rank", "cls", "options"), list(_cells()))
each_plain_layer = pytest.mark.parametrize(
    ("name", "rank", "cls", "options"), list(_cells(every_configuration=False))
)
each_lazy_layer = pytest.mark.parametrize(
    ("name", "rank", "cls", "options"), list(_cells(lazy=True))
)


def _has_sources(name):
    return TABLE.variant(name).domain.sources


def _source_axes(rank):
    return [axes for count in range(rank, -1, -1) for axes in combinations(range(rank), count)]


def _make(name, rank, cls, options, *, seed=0):
    torch.manual_seed(seed)
    channels = (GROUPS,) * 2**rank if _has_sources(name) else CHANNELS
    return cls(channels, FILTERS, 3, groups=GROUPS, **options).eval()


def _inputs(name, rank, options, *, size=SIZE, seed=0, n=2):
    """Return the tensors of one call of a layer, in float32."""
    draw = torch.Generator().manual_seed(seed)
    size = size[:rank]
    if _has_sources(name):
        shapes = [(n, GROUPS, *(size[axis] for axis in axes)) for axes in _source_axes(rank)]
        return tuple(torch.randn(shape, generator=draw) for shape in shapes)
    x = torch.randn((n, CHANNELS, *size), generator=draw)
    shapes = {
        "input_masked": x.shape,
        "window_masked": (n, CHANNELS, *(3,) * rank, *(side - 2 for side in size)),
        "kernel_masked": x.shape,
        "partial": x.shape if options.get("multi_channel", True) else (n, 1, *size),
        "masked": x.shape,
    }
    if name not in shapes:
        return (x,)
    return x, (torch.rand(shapes[name], generator=draw) < 0.6).float()


def _outputs(result):
    return [
        value for value in (result if isinstance(result, tuple) else (result,)) if value is not None
    ]


def _assert_equal(got, expected):
    for left, right in zip(_outputs(got), _outputs(expected), strict=True):
        assert left.equal(right)


def _assert_close(got, expected):
    for left, right in zip(_outputs(got), _outputs(expected), strict=True):
        torch.testing.assert_close(left, right)


def _pinnable(name):
    for implementation in TABLE.variant(name).implementations:
        if implementation.missing() is None and Need.COMPILER not in implementation.needs:
            yield implementation


def test_every_variant_has_a_layer_for_every_rank():
    ranks = {(name, rank) for name, rank, _ in _classes(lazy=False)}
    assert ranks == {(name, rank) for name in TABLE.variants for rank in (1, 2, 3)}
    assert ranks == {(name, rank) for name, rank, _ in _classes(lazy=True)}


# -- parameters and state ------------------------------------------------------------------------


@each_plain_layer
def test_parameters_are_those_of_torch(name, rank, cls, options):
    """G39, G44: keys, shapes, strict loading both ways, and values after the same seed."""
    layer = _make(name, rank, cls, options)
    if not isinstance(layer, PLAIN[rank]):
        assert _has_sources(name), f"{cls.__name__} is no subclass of {PLAIN[rank].__name__}"
        _assert_equal(
            tuple(layer.parameters()), tuple(_make(name, rank, cls, options).parameters())
        )
        return
    torch.manual_seed(0)
    plain = PLAIN[rank](layer.in_channels, FILTERS, 3, groups=GROUPS)
    own, theirs = layer.state_dict(), plain.state_dict()
    assert list(own) == list(theirs)
    for key, value in theirs.items():
        assert own[key].equal(value), key
    other = _make(name, rank, cls, options, seed=1)
    other.load_state_dict(theirs, strict=True)
    plain.load_state_dict(own, strict=True)
    inputs = _inputs(name, rank, options)
    _assert_equal(other(*inputs), layer(*inputs))


@each_layer
def test_state_restores_the_layer(name, rank, cls, options):
    """G39: whatever a layer learns is in its state."""
    layer, other = (_make(name, rank, cls, options, seed=seed) for seed in (0, 1))
    other.load_state_dict(layer.state_dict(), strict=True)
    inputs = _inputs(name, rank, options)
    _assert_equal(other(*inputs), layer(*inputs))


@each_layer
def test_copies_compute_the_same(name, rank, cls, options):
    """G40: deepcopy, pickle and torch.save; a pickle does not grow with the calls before it."""
    layer, inputs = _make(name, rank, cls, options), _inputs(name, rank, options)
    size = len(pickle.dumps(layer))
    expected = layer(*inputs)
    layer(*_inputs(name, rank, options, size=OTHER_SIZE))
    assert len(pickle.dumps(layer)) == size
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    copies = {
        "deepcopy": copy.deepcopy(layer),
        "pickle": pickle.loads(pickle.dumps(layer)),
        "torch.save": torch.load(saved, weights_only=False),
    }
    for copied in copies.values():
        _assert_equal(copied(*inputs), expected)


# -- modes ---------------------------------------------------------------------------------------


@each_layer
def test_training_follows_inference(name, rank, cls, options):
    """G29: nothing that was made in inference mode is kept."""
    layer, inputs = _make(name, rank, cls, options), _inputs(name, rank, options)
    with torch.inference_mode():
        expected = layer(*inputs)
    layer.train(mode=options != DRAWS_NOISE)
    result = layer(*inputs)
    _assert_close(result, expected)
    _outputs(result)[0].square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@each_layer
def test_dtype_follows_the_parameters(name, rank, cls, options):
    """G30: `.to(dtype)` there and back, calls between."""
    layer, inputs = _make(name, rank, cls, options), _inputs(name, rank, options)
    expected = layer(*inputs)
    wide = layer.to(torch.float64)(*(value.double() for value in inputs))
    assert all(value.dtype == torch.float64 for value in _outputs(wide))
    for got, value in zip(_outputs(wide), _outputs(expected), strict=True):
        torch.testing.assert_close(got.float(), value)
    _assert_equal(layer.to(torch.float32)(*inputs), expected)


@each_layer
def test_meta_device_gives_the_shape(name, rank, cls, options):
    """G41: `.to('meta')` after a call, a call there, and the state loaded back."""
    layer, inputs = _make(name, rank, cls, options), _inputs(name, rank, options)
    expected, state = layer(*inputs), copy.deepcopy(layer.state_dict())
    shapes = layer.to("meta")(*(value.to("meta") for value in inputs))
    for got, value in zip(_outputs(shapes), _outputs(expected), strict=True):
        assert got.shape == value.shape
    layer.to_empty(device="cpu").load_state_dict(state)
    _assert_equal(layer(*inputs), expected)


@each_layer
def test_threads_share_a_layer(name, rank, cls, options):
    """G28: two threads, other sizes and masks, one module: bit for bit what one thread gives."""
    layer = _make(name, rank, cls, options)
    calls = [
        _inputs(name, rank, options, size=size, seed=seed)
        for seed in range(4) for size in (SIZE, OTHER_SIZE)
    ]  # fmt: skip
    serial = [layer(*inputs) for inputs in calls]
    with ThreadPoolExecutor(2) as pool:
        parallel = list(pool.map(lambda inputs: layer(*inputs), calls * 3))
    for got, expected in zip(parallel, serial * 3, strict=True):
        _assert_equal(got, expected)


# -- lazy forms ----------------------------------------------------------------------------------


@each_lazy_layer
def test_lazy_layer_becomes_the_eager_one(name, rank, cls, options):
    """G39, G44: after the first call the class, shapes and first values of the eager layer."""
    eager_class = getattr(importlib.import_module(f"impls.{name}"), cls.__name__[len("Lazy") :])
    eager, inputs = _make(name, rank, eager_class, options), _inputs(name, rank, options)
    lazy = cls(FILTERS, 3, groups=GROUPS, **options).eval()
    assert lazy.has_uninitialized_params()
    torch.manual_seed(0)
    result = lazy(*inputs)
    assert type(lazy) is eager_class
    assert lazy.in_channels == eager.in_channels
    assert list(lazy.state_dict()) == list(eager.state_dict())
    for key, value in eager.state_dict().items():
        assert lazy.state_dict()[key].equal(value), key
    _assert_equal(result, eager(*inputs))


@each_lazy_layer
def test_lazy_layer_loads_a_state_before_its_first_call(name, rank, cls, options):
    eager_class = getattr(importlib.import_module(f"impls.{name}"), cls.__name__[len("Lazy") :])
    eager, inputs = _make(name, rank, eager_class, options), _inputs(name, rank, options)
    lazy = cls(FILTERS, 3, groups=GROUPS, **options).eval()
    lazy.load_state_dict(eager.state_dict())
    _assert_equal(lazy(*inputs), eager(*inputs))


# -- the choice of an implementation -------------------------------------------------------------


def _code_run_by(layer, inputs):
    """Return the result of a call, and the code objects that ran."""
    seen = set()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: seen.add(frame.f_code) if event == "call" else None)
    try:
        result = layer(*inputs)
    finally:
        sys.setprofile(before)
    return result, seen


@each_layer
def test_pinned_implementation_runs(name, rank, cls, options):
    inputs = _inputs(name, rank, options)
    expected = _make(name, rank, cls, options)(*inputs)
    ran = 0
    for implementation in _pinnable(name):
        layer = _make(name, rank, cls, {**options, "implementation": implementation.name})
        assert f"implementation={implementation.name!r}" in repr(layer)
        try:
            result, seen = _code_run_by(layer, inputs)
        except CaseError as declined:
            assert re.match(rf"implementation='{implementation.name}' does not", str(declined))  # noqa: PT017 - declining is one of two right answers
            continue
        function = implementation.load()
        function = getattr(function, "func", function)
        assert isinstance(function, FunctionType)
        assert function.__code__ in seen
        _assert_close(result, expected)
        ran += 1
    assert ran >= 1


@each_plain_layer
def test_unknown_implementation_is_named(name, rank, cls, options):
    layer = _make(name, rank, cls, {**options, "implementation": "magic"})
    known = TABLE.variant(name).implementations[0].name
    with pytest.raises(CaseError, match=rf"implementation='magic' must be one of .*{known}"):
        layer(*_inputs(name, rank, options))
