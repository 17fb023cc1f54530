"""Every layer of every variant: its lazy form, and the choice of an implementation."""

import importlib
import re
import sys
from itertools import combinations
from types import FunctionType

import pytest
import torch

from harness.case import CaseError
from harness.table import load_table
from harness.variant import Need

TABLE = load_table()
CHANNELS, FILTERS, GROUPS = 4, 6, 2
SIZE = (9, 8, 7)


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


def _inputs(name, rank, options, *, n=2):
    """Return the tensors of one call of a layer, in float32."""
    draw = torch.Generator().manual_seed(0)
    size = SIZE[:rank]
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


def test_lazy_layers_take_the_arguments_of_torchs_by_place():
    """padding_mode, device and dtype stand where `torch.nn.LazyConvNd` has them."""
    rest = (6, 3, 2, 1, 1, 2, True, "reflect", "cpu", torch.float64)
    for name, rank, cls in _classes(lazy=True):
        if TABLE.variant(name).domain.same_size or name == "window_masked":
            continue
        lazy = cls(*rest)
        torchs = getattr(torch.nn, f"LazyConv{rank}d")(*rest)
        assert lazy.weight.dtype == torchs.weight.dtype
        for word in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
            assert getattr(lazy, word) == getattr(torchs, word), (cls, word)


# -- one sample without a batch -------------------------------------------------------------------


@each_layer
def test_layer_takes_one_sample_without_a_batch(name, rank, cls, options):
    layer, inputs = _make(name, rank, cls, options), _inputs(name, rank, options, n=1)
    expected = [value[0] for value in _outputs(layer(*inputs))]
    _assert_equal(tuple(expected), layer(*(value[0] for value in inputs)))


@each_lazy_layer
def test_lazy_layer_learns_its_channels_from_one_sample(name, rank, cls, options):
    lazy, inputs = (
        cls(FILTERS, 3, groups=GROUPS, **options).eval(),
        _inputs(name, rank, options, n=1),
    )
    got = lazy(*(value[0] for value in inputs))
    _assert_equal(got, tuple(value[0] for value in _outputs(lazy(*inputs))))


@each_layer
def test_signal_with_too_few_axes_is_named(name, rank, cls, options):
    layer, inputs = _make(name, rank, cls, options), _inputs(name, rank, options, n=1)
    with pytest.raises(CaseError, match=r"shape=\(.*needs .* axes"):
        layer(*(value[0, 0] for value in inputs))


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


@each_layer
def test_layer_says_which_implementation_it_takes_and_why(name, rank, cls, options):
    layer, inputs = _make(name, rank, cls, options), _inputs(name, rank, options)
    for form in (lambda x: x, lambda x: x[:1]):
        given = tuple(map(form, inputs))
        told = layer.chosen(*given)
        variant = TABLE.variant(name)
        assert {word for word, _ in told.reasons} == {i.name for i in variant.implementations}
        assert told.implementation in str(told)
        assert told.reason
        chosen = next(i for i in variant.implementations if i.name == told.implementation)
        function = chosen.load()
        _, seen = _code_run_by(layer, given)
        assert getattr(function, "func", function).__code__ in seen


@each_plain_layer
def test_pinned_implementation_is_what_a_layer_says(name, rank, cls, options):
    layer = _make(
        name, rank, cls, {**options, "implementation": TABLE.variant(name).reference.name}
    )
    told = layer.chosen(*_inputs(name, rank, options))
    assert (told.implementation, told.reason) == (TABLE.variant(name).reference.name, "pinned")


@each_plain_layer
def test_unknown_implementation_is_named(name, rank, cls, options):
    layer = _make(name, rank, cls, {**options, "implementation": "magic"})
    known = TABLE.variant(name).implementations[0].name
    with pytest.raises(CaseError, match=rf"implementation='magic' must be one of .*{known}"):
        layer(*_inputs(name, rank, options))
