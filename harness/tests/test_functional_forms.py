"""What the functional forms and layers promise beyond values: precision, derivatives, refusals."""

import pytest
import torch
from torch import nn

from harness.api import explain
from harness.case import CaseError
from impls import (
    boundary,
    input_masked,
    kernel_masked,
    masked,
    multi_source,
    partial,
    plain,
    window_masked,
)

# torch.func.jvp compiles decompositions that way when it is first used
FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")
X = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
MASK = (torch.rand(2, 4, 6, 5, generator=torch.Generator().manual_seed(2)) > 0.5).float()


@pytest.mark.parametrize("name", ["convolved_mask", "box_filter"])
def test_coverage_does_not_overflow_in_half_precision(name):
    x = torch.full((1, 2048, 7, 7), 2.0**-9, dtype=torch.float16)
    weight = torch.full_like(x, 2.0**-9)
    y, updated = partial.functional(x, weight, None, torch.ones_like(x), implementation=name)
    assert y.item() == 2048 * 49 * 2.0**-18  # 100352 taps, more than float16 holds
    assert updated.item() == 1


@pytest.mark.parametrize("name", ["masked_signal", "present_box"])
@pytest.mark.parametrize("hole", [7.0, float("nan"), float("inf")])
def test_holes_do_not_reach_the_gradient_of_a_real_mask(name, hole):
    mask = MASK.clone().requires_grad_()
    x = X.masked_fill(MASK == 0, hole)
    input_masked.functional(x, WEIGHT, None, mask, implementation=name).sum().backward()
    assert not mask.grad[MASK == 0].any()
    assert mask.grad[MASK > 0].all()


@FORWARD_MODE
@pytest.mark.parametrize("variant", [masked, partial])
def test_mask_path_is_a_constant_in_forward_mode(variant):
    def of_mask(mask):
        return variant.functional(X, WEIGHT, None, mask).output

    for implementation in variant.VARIANT.implementations[:2]:
        tangent = torch.func.jvp(of_mask, (MASK,), (MASK,))[1]
        assert not tangent.any(), implementation.name

    def of_weight(weight):  # linear in the weight once the mask is a constant
        return variant.functional(X, weight, None, MASK).output

    y, tangent = torch.func.jvp(of_weight, (WEIGHT,), (torch.ones_like(WEIGHT),))
    _, back = torch.func.vjp(of_weight, WEIGHT)
    assert (y * tangent).sum().item() == pytest.approx(back(y)[0].sum().item(), rel=1e-3)


@FORWARD_MODE
def test_plain_has_a_forward_derivative():
    tangent = torch.func.jvp(lambda x: plain.functional(x, WEIGHT), (X,), (X,))[1]
    torch.testing.assert_close(tangent, plain.functional(X, WEIGHT))


@pytest.mark.parametrize("variant", [input_masked, masked, partial])
def test_masks_can_be_mapped_over(variant):
    def one(x, mask):
        y = variant.functional(x[None], WEIGHT, None, mask[None])
        return (y if isinstance(y, torch.Tensor) else y.output)[0]

    expected = torch.stack([one(x, m) for x, m in zip(X, MASK, strict=True)])
    torch.testing.assert_close(torch.func.vmap(one)(X, MASK), expected)


def test_even_same_padding_says_what_is_wrong():
    even = WEIGHT[..., :2, :2]
    mask = torch.ones(1, 1, 2, 2, 6, 5)
    with pytest.raises(CaseError, match="takes no argument 'padding_mode'"):
        window_masked.functional(X, even, None, mask, padding="same", padding_mode="reflect")
    with pytest.raises(CaseError, match="padding_mode='other' must be one of"):
        plain.functional(X, even, padding="same", padding_mode="other")
    with pytest.raises(CaseError, match="needs at most 0"):
        plain.functional(X[:, :, :1], even, padding="same", padding_mode="reflect")


@pytest.mark.parametrize("method", boundary.METHODS)
def test_boundary_names_a_signal_without_channels(method):
    with pytest.raises(CaseError, match="needs 4 axes: batch, channels and 2 spatial; or 3"):
        boundary.BoundaryConv2d(4, 6, 3, method=method)(X[0, 0])


def test_partial_names_a_signal_without_channels():
    with pytest.raises(CaseError, match="needs 4 axes: batch, channels and 2 spatial; or 3"):
        partial.PartialConv2d(4, 6, 3)(X[0, 0], MASK[0, 0])


@pytest.mark.parametrize("variant", [input_masked, masked, partial])
@pytest.mark.parametrize("padding", [0, 1, "same"])
def test_one_sample_is_a_batch_of_one(variant, padding):
    for mask in (MASK[:1], MASK[:1, :1]):
        batch = variant.functional(X[:1], WEIGHT, None, mask, padding=padding)
        single = variant.functional(X[0], WEIGHT, None, mask[0], padding=padding)
        batch, single = ((r,) if torch.is_tensor(r) else r for r in (batch, single))
        for whole, one in zip(batch, single, strict=True):
            assert torch.equal(whole[0], one)


@pytest.mark.parametrize("padding", [0, 1, "same"])
def test_one_sample_needs_no_mask(padding):
    even = WEIGHT[..., :2, :2]
    for weight in (WEIGHT, even):
        for field in (0, 1):
            whole = partial.functional(X[:1], weight, padding=padding)[field]
            assert torch.equal(partial.functional(X[0], weight, padding=padding)[field], whole[0])


def test_masks_of_a_single_sample_come_without_a_batch_alike():
    with pytest.raises(CaseError, match=r"mask.shape=\(1, 1, 4, 6, 5\) must be"):
        masked.functional(X[0], WEIGHT, None, MASK[:1])


def test_what_computes_a_call_is_explained():
    told = explain(partial.functional, X, WEIGHT, None, MASK, stride=2)
    assert told.case.stride == (2, 2)
    assert dict(told.reasons)[told.implementation] == told.reason
    pinned = explain(plain.functional, X, WEIGHT, implementation="library")
    assert (pinned.implementation, pinned.reason) == ("library", "pinned")
    with pytest.raises(CaseError, match="must be"):
        explain(plain.functional, X, WEIGHT[:, :3])
    with pytest.raises(TypeError, match="must be the functional form"):
        explain(lambda *_, **__: None, X)


@pytest.mark.parametrize("cls", [partial.LazyPartialConv2d, masked.LazyMaskedConv2d])
def test_lazy_layers_take_the_signal_by_name(cls):
    layer = cls(6, 3)
    assert layer(x=X, mask=MASK).output.shape == (2, 6, 4, 3)
    assert layer.in_channels == 4


def test_lazy_sources_load_a_state_with_absent_ones():
    state = multi_source.MultiSourceConv2d((4, 0, 0, 3), 6, 3).state_dict()
    model = nn.Sequential(multi_source.LazyMultiSourceConv2d(6, 3))
    model.load_state_dict({f"0.{name}": value for name, value in state.items()})
    assert model[0](X, scalar=torch.ones(2, 3)).shape == (2, 6, 4, 3)
    assert model[0].in_channels == (4, 0, 0, 3)


def test_groups_that_do_not_divide_a_source_are_refused():
    with pytest.raises(CaseError, match="is not divisible by groups=2"):
        multi_source.from_tile_concat(torch.ones(4, 2, 3, 3), (3, 1, 0, 0), groups=2)


def test_kernel_mask_is_checked_at_once_and_an_assigned_one_stays():
    with pytest.raises(CaseError, match=r"must hold values in \[0, 1\]"):
        kernel_masked.KernelMaskedConv2d(4, 6, 3, kernel_mask=torch.full((3, 3), 1.5))
    layer = kernel_masked.KernelMaskedConv2d(4, 6, 3)
    layer.kernel_mask = torch.eye(3)
    assert torch.equal(layer.double().kernel_mask, torch.eye(3))
