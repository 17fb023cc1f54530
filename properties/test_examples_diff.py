"""Convolution without padding, by example: its purpose and where its claims end."""

import importlib
from dataclasses import replace
from math import prod

import pytest
import torch

from harness.api import CaseError, ConvCase
from harness.effort import Profile
from harness.law import Law
from harness.results import Outcome
from harness.search import search
from harness.table import load_table
from harness.variant import Trait
from properties.laws.polynomials import low_degrees, polynomials_are_continued

DIFFS = importlib.import_module("impls.diff")
BOUNDARIES = importlib.import_module("impls.boundary")
diff, boundary = DIFFS.functional, BOUNDARIES.functional
TABLE = load_table()
DIFF = TABLE.variant("diff")
METHODS = TABLE.variant("boundary").options["method"]
LAYERS = {
    rank: (
        getattr(torch.nn, f"Conv{rank}d"),
        getattr(DIFFS, f"DiffConv{rank}d"),
        getattr(DIFFS, f"LazyDiffConv{rank}d"),
        getattr(BOUNDARIES, f"BoundaryConv{rank}d"),
        getattr(BOUNDARIES, f"LazyBoundaryConv{rank}d"),
    )
    for rank in (1, 2, 3)
}
IMAGE = torch.arange(25.0).view(1, 1, 5, 5)
BOX = torch.ones(1, 1, 3, 3)


@pytest.fixture(params=[i.name for i in DIFF.implementations if not i.requirements()])
def implementation(request):
    return request.param


# -- what it computes ------------------------------------------------------------------------------


def test_a_plane_has_no_border(implementation):
    got = diff(IMAGE, BOX, implementation=implementation)
    assert torch.equal(got, 9 * IMAGE)


def test_squares_continue(implementation):
    x = torch.arange(1.0, 5.0).square().view(1, 1, 4)
    weight = torch.tensor([[[1.0, 10.0, 100.0]]])
    got = diff(x, weight, implementation=implementation)
    assert got.flatten().tolist() == [410.0, 941.0, 1694.0, 2669.0]  # 0 before 1, 25 behind 16


def test_a_constant_image_stays_constant(implementation):
    got = diff(torch.full((1, 1, 6, 7), 2.0), BOX, torch.ones(1), implementation=implementation)
    assert torch.equal(got, torch.full((1, 1, 6, 7), 19.0))


def test_hint_never_changes_the_value(implementation):
    both = [
        diff(IMAGE.square(), BOX, optimized_for=target, implementation=implementation)
        for target in ("memory", "speed")
    ]
    assert torch.equal(*both)


# -- where its laws end ----------------------------------------------------------------------------


def _counterexample(check, **fields):
    law = Law(
        id="X", name="claims_too_much", statement="more than is true", check=check,
        requires=frozenset({Trait.EXTENDS_POLYNOMIALLY}), **fields,
    )  # fmt: skip
    found = search(law, DIFF, DIFF.reference, Profile(cases=300), variants=TABLE.variants)
    assert found.outcome is Outcome.REFUTED
    return found.case


def test_degree_k_is_not_continued():
    case = _counterexample(
        polynomials_are_continued(above=1),
        within=lambda case: case.with_options(degree=None, edge_kernel=None),
    )
    assert case.kernel_size == case.in_size == (3,)
    assert (case.n, case.c_in, case.c_out, case.dilation) == (1, 1, 1, (1,))


def test_degree_0_is_not_replication_of_a_dilated_image():
    def low(case: ConvCase) -> ConvCase:
        return case.with_options(degree="0", edge_kernel=None)

    case = _counterexample(low_degrees, within=low)
    assert (case.n, case.c_in, case.c_out, case.taps) == (1, 1, 1, 3)
    assert case.dilation[case.kernel_size.index(3)] == 2


def test_flip_needs_the_last_window_to_touch_the_border():
    law = TABLE.law("D6")
    case = _counterexample(law.check)
    assert prod(case.in_size) == 2
    assert any((size - 1) % s for size, s in zip(case.in_size, case.stride, strict=True))


def test_library_modes_do_not_continue_a_plane():
    errors = {
        method: float((boundary(IMAGE, BOX, method=method) - 9 * IMAGE).abs().max())
        for method in METHODS[:4]
    }
    assert min(errors.values()) > 0


# -- the experiment of the paper in miniature ------------------------------------------------------


def _border_errors(kernel_size: int) -> dict[str, float]:
    """Filter a patch of a smooth field; compare its border with the field filtered as a whole."""
    p, side = kernel_size // 2, 32
    y, x = (torch.arange(-p, side + p, dtype=torch.float64) / side for _ in range(2))
    field = torch.sin(5 * y[:, None] + 1) * torch.exp(x[None, :]) + torch.cos(3 * x[None, :])
    patch = field[p:-p, p:-p]
    weight = torch.linspace(-1, 2, kernel_size**2, dtype=torch.float64)
    weight = weight.view(1, 1, kernel_size, kernel_size)
    truth = torch.conv2d(field[None, None], weight)
    inner = (..., slice(p, -p), slice(p, -p))
    errors = {}
    for method in ("diff", "extrapolate", "zeros", "reflect", "replicate", "circular", "partial"):
        error = (boundary(patch[None, None], weight, method=method) - truth).abs()
        assert float(error[inner].max()) < 1e-12
        errors[method] = float(error.max())
    return errors


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_border_of_a_smooth_field_is_right(kernel_size):
    """One more degree of the continuation gains about one power of the sample distance, 1/32."""
    errors = _border_errors(kernel_size)
    others = [errors[name] for name in ("zeros", "reflect", "replicate", "circular", "partial")]
    assert errors["diff"] < min(others) / 32
    assert errors["diff"] < errors["extrapolate"] < min(others)


# -- the published interface -----------------------------------------------------------------------


def test_call_of_the_seed():
    torch.manual_seed(0)
    # whole numbers: every order of summation gives the same
    x, weight, edge = (torch.randint(-3, 4, s).float() for s in ((2, 4, 6, 9), *[(6, 2, 3, 3)] * 2))
    got = DIFFS.conv2d(x, weight, groups=2, keep_img_grad_at_invalid=True, edge_kernel=None,
                 optimized_for="memory")  # fmt: skip
    assert got.shape == (2, 6, 6, 9)
    assert torch.equal(got, diff(x, weight, groups=2))
    edged = DIFFS.conv2d(x, weight, groups=2, edge_kernel=edge, optimized_for="speed")
    assert torch.equal(edged[..., 1:-1, 1:-1], got[..., 1:-1, 1:-1])
    assert torch.equal(edged[..., 0, :], diff(x, edge, groups=2)[..., 0, :])


def test_border_outputs_can_keep_their_gradient_to_themselves(implementation):
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    y = diff(x, BOX, keep_img_grad_at_invalid=False, implementation=implementation)
    y.sum().backward()
    windows = torch.conv_transpose2d(torch.ones(1, 1, 2, 2), BOX)
    assert torch.equal(x.grad, windows)


# -- layers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layers_are_drop_ins(rank):
    library, layer, lazy, other, lazy_other = LAYERS[rank]
    x = torch.randn(2, 4, *(6, 5, 4)[:rank])
    torch.manual_seed(1)
    expected = library(4, 6, 3, padding=1, groups=2).state_dict()
    for kind in (layer, other):
        torch.manual_seed(1)
        made = kind(4, 6, 3, groups=2)
        assert made.state_dict().keys() == expected.keys()
        assert all(torch.equal(made.state_dict()[name], expected[name]) for name in expected)
        assert made(x).shape == (2, 6, *x.shape[2:])
    for kind in (lazy, lazy_other):
        torch.manual_seed(1)
        made = kind(6, 3, groups=2)
        made(x)
        assert type(made) is kind.cls_to_become
        assert made.in_channels == 4
        assert all(torch.equal(made.state_dict()[name], expected[name]) for name in expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_edge_kernel_is_trained(rank):
    _, layer, lazy, *_ = LAYERS[rank]
    x = torch.randn(2, 4, *(6, 5, 4)[:rank])
    made, later = layer(4, 6, 3, train_edge_kernel=True), lazy(6, 3, train_edge_kernel=True)
    assert torch.equal(later(x), later(x))
    for module in (made, later):
        names = {name: tuple(p.shape) for name, p in module.named_parameters()}
        assert names["edge_kernel"] == names["weight"] == (6, 4, *(3,) * rank)
        assert names["edge_bias"] == names["bias"]
        module(x).sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in module.parameters())
    copied = layer(4, 6, 3, train_edge_kernel=True)
    copied.load_state_dict(made.state_dict())
    assert torch.equal(copied(x), made(x))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_method_has_layers(rank, method):
    *_, layer, lazy = LAYERS[rank]
    x = torch.randn(2, 4, *(6, 5, 4)[:rank])
    made, later = layer(4, 6, 3, stride=2, method=method), lazy(6, 3, method=method)
    assert made(x).shape == (2, 6, *((n + 1) // 2 for n in x.shape[2:]))
    assert later(x).shape == (2, 6, *x.shape[2:])
    stacked = (3,) * rank if method == "explicit" else ()
    assert made.weight.shape == later.weight.shape == (*stacked, 6, 4, *(3,) * rank)
    assert method in repr(made)


def test_explicit_kernels_start_alike():
    layer = BOUNDARIES.BoundaryConv2d(2, 3, 3, method="explicit")
    layer.reset_parameters()
    assert torch.equal(layer.weight[0, 0], layer.weight[2, 1])
    x = torch.randn(1, 2, 5, 5)
    zeros = torch.conv2d(x, layer.weight[1, 1], layer.bias, padding=1)
    torch.testing.assert_close(layer(x), zeros)


def test_random_layer_is_deterministic_in_evaluation():
    x = torch.randn(2, 3, 8, 8)
    layer = BOUNDARIES.BoundaryConv2d(3, 4, 5, method="random")
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(layer(x), boundary(x, layer.weight, layer.bias, method="random"))


def test_random_layer_draws_from_its_generator():
    x = torch.randn(1, 1, 6)
    layer = BOUNDARIES.BoundaryConv1d(1, 1, 3, method="random", generator=torch.Generator())
    draws = []
    for _ in range(2):
        layer.generator.manual_seed(3)
        draws.append(layer(x))
    assert torch.equal(*draws)


# -- errors ----------------------------------------------------------------------------------------


def test_small_images_raise(implementation):
    with pytest.raises(CaseError, match=r"in_size=\(3, 2\) must be at least \(3, 3\)"):
        diff(torch.ones(1, 1, 3, 2), BOX, implementation=implementation)
    with pytest.raises(CaseError, match=r"in_size=\(5, 9\) must be at least \(6, 3\)"):
        diff(torch.ones(1, 1, 5, 9), BOX, dilation=(2, 1), implementation=implementation)
    function = next(i for i in DIFF.implementations if i.name == implementation).load()
    with pytest.raises(CaseError, match=r"in_size=\(2,\) must be at least \(3,\) to be continued"):
        function(torch.ones(1, 1, 2), torch.ones(1, 1, 3), stride=(1,), dilation=(1,), groups=1)


def test_lower_degrees_need_fewer_samples(implementation):
    got = diff(torch.ones(1, 1, 1, 1), BOX, degree=0, implementation=implementation)
    assert got.item() == 9


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"degree": 3}, r"degree=3 must be at most 2 for kernel_size=\(3, 3\)"),
        ({"degree": -1}, "degree=-1 must be one of None, 0, 1"),
        ({"optimized_for": "beauty"}, "optimized_for=beauty must be one of memory, speed"),
        ({"edge_kernel": torch.ones(1, 1, 5, 5)}, r"edge_kernel.shape=\(1, 1, 5, 5\) must be"),
        ({"edge_bias": torch.ones(1)}, r"edge_bias.shape=\(1,\) must be absent"),
    ],
)
def test_wrong_arguments_of_diff_raise(keywords, message):
    with pytest.raises(CaseError, match=message):
        diff(IMAGE, BOX, **keywords)


def test_even_kernels_raise():
    for layer in (DIFFS.DiffConv2d, BOUNDARIES.BoundaryConv2d):
        with pytest.raises(CaseError, match=r"kernel_size=\(3, 2\) must be odd on every axis"):
            layer(1, 1, (3, 2))
    with pytest.raises(CaseError, match=r"kernel_size=\(2, 2\) must be odd on every axis"):
        diff(IMAGE, torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("method", "size", "least"),
    [
        ("reflect", 1, 2),
        ("explicit", 1, 2),
        ("random", 1, 2),
        ("extrapolate", 1, 2),
        ("diff", 2, 3),
    ],
)
def test_methods_tell_their_least_size(method, size, least):
    weight = torch.ones(3, 1, 1, 3) if method == "explicit" else torch.ones(1, 1, 3)
    with pytest.raises(CaseError, match=rf"in_size=\({size},\) must be at least \({least},\)"):
        boundary(torch.ones(1, 1, size), weight, method=method)


def test_wrong_arguments_of_boundary_raise():
    with pytest.raises(CaseError, match="method='mirror' must be one of zeros, reflect"):
        BOUNDARIES.BoundaryConv2d(1, 1, 3, method="mirror")
    with pytest.raises(CaseError, match="method=mirror must be one of zeros, reflect"):
        boundary(IMAGE, BOX, method="mirror")
    with pytest.raises(
        CaseError, match=r"weight.shape=\(1, 1, 3, 3\) must be \(3, 3, 1, 1, 3, 3\)"
    ):
        boundary(IMAGE, BOX, method="explicit")
    with pytest.raises(CaseError, match=r"noise.shape=\(1, 1, 5, 5\) must be \(1, 1, 7, 7\)"):
        boundary(IMAGE, BOX, noise=IMAGE, method="random")
    with pytest.raises(CaseError, match=r"noise.shape=\(1, 1, 7, 7\) must be absent"):
        boundary(IMAGE, BOX, noise=torch.ones(1, 1, 7, 7))


def test_the_domain_of_a_case_is_checked():
    case = ConvCase.parse("n1 c1>1 i5 k3 p1")
    DIFF.check_case(case)
    with pytest.raises(CaseError, match=r"padding=\(0,\) must be dilation"):
        DIFF.check_case(replace(case, padding=(0,)))
