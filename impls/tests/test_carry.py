"""Modules that carry a mask: equal to torch's for masks of ones, blind to holes, each sample alone."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import impls
from harness.case import CaseError
from impls import Carried, MaskedMean, MaskedPixelShuffle, MaskedPixelUnshuffle, Pointwise

many = settings(max_examples=80, deadline=None)


def _of_rank(word, rank):
    return getattr(impls, f"{word}{rank}d")


@st.composite
def _signals(draw, *, channels=None, least=2, factor=1):
    """Draw a signal and a mask of it, shared or not by batch and channels, bool or real."""
    rank = draw(st.integers(1, 3))
    c = draw(st.integers(1, 3)) if channels is None else channels
    n = draw(st.integers(1, 3))
    size = [factor * draw(st.integers(least, 5)) for _ in range(rank)]
    torch.manual_seed(draw(st.integers(0, 999)))
    x = torch.randn((n, c, *size), dtype=torch.float64)
    shape = (draw(st.sampled_from((1, n))), draw(st.sampled_from((1, c))), *size)
    mask = torch.rand(shape) < draw(st.sampled_from((0, 0.3, 0.7, 1)))
    return x, mask if draw(st.booleans()) else mask.to(x.dtype)


@st.composite
def _modules(draw):
    """Draw a companion of any kind with a signal and mask that it takes."""
    kind = draw(
        st.sampled_from(("norm", "max", "avg", "mean", "shuffle", "unshuffle", "pointwise"))
    )
    factor = 2 if kind == "unshuffle" else 1
    x, mask = draw(_signals(channels=8 if kind == "shuffle" else None, factor=factor))
    rank = x.dim() - 2
    if kind == "norm":
        module = _of_rank("MaskedBatchNorm", rank)(x.shape[1], dtype=x.dtype)
    elif kind in ("max", "avg"):
        module = _of_rank(f"Masked{kind.title()}Pool", rank)(
            2, draw(st.integers(1, 2)), draw(st.integers(0, 1))
        )
    else:
        module = {
            "mean": MaskedMean(keepdim=draw(st.booleans())), "shuffle": MaskedPixelShuffle(2),
            "unshuffle": MaskedPixelUnshuffle(2), "pointwise": Pointwise(nn.Softplus()),
        }[kind]  # fmt: skip
    return module, x, mask


def _hidden(x, mask):
    return (mask == 0).expand_as(x)


def _same(got, expected):
    torch.testing.assert_close(got, expected, equal_nan=False)


# -- all companions -------------------------------------------------------------------------------


@many
@given(_modules(), st.sampled_from((float("nan"), float("inf"), 7.0)))
def test_what_stands_in_holes_reaches_neither_output_nor_gradient(made, content):
    module, x, mask = made
    twin = copy.deepcopy(module)
    filled = x.masked_fill(_hidden(x, mask), content).requires_grad_()
    x = x.masked_fill(_hidden(x, mask), 0).requires_grad_()
    (y, updated), (other, others) = module(x, mask), twin(filled, mask)
    assert torch.equal(y, other)
    assert torch.equal(updated, others)
    dy = torch.randn_like(y)
    (dx,), (dfilled,) = torch.autograd.grad(y, x, dy), torch.autograd.grad(other, filled, dy)
    assert torch.equal(dx, dfilled)
    assert not dx[_hidden(x, mask)].any()


@many
@given(_modules())
def test_holes_of_the_output_are_zero_and_its_mask_fits(made):
    module, x, mask = made
    y, updated = module(x, mask)
    assert updated.dtype == mask.dtype
    assert updated.dim() == y.dim()
    hidden = (updated == 0).expand_as(y)
    assert not y[hidden].any()
    assert y.dtype == x.dtype
    assert y.isfinite().all()


@many
@given(_modules())
def test_without_a_mask_the_result_has_none_and_equals_that_of_ones(made):
    module, x, mask = made
    if x.numel() // x.shape[1] == 1:
        return
    twin = copy.deepcopy(module)
    plain, none = twin(x)
    assert none is None
    ones = torch.ones_like(mask)
    y, updated = module(x, ones)
    _same(y, plain)
    assert updated.all()
    for held, other in zip(module.buffers(), twin.buffers(), strict=True):
        _same(held, other)


@settings(max_examples=30, deadline=None)
@given(_modules())
def test_derivatives_agree_with_differences(made):
    module, x, mask = made
    x, module = x.double().requires_grad_(), module.double()
    mask = mask if mask.dtype == torch.bool else mask.double()
    assert torch.autograd.gradcheck(
        lambda v: copy.deepcopy(module)(v, mask).output, (x,), check_batched_grad=False
    )


@many
@given(_modules())
def test_a_mask_that_is_shared_acts_as_its_copies(made):
    module, x, mask = made
    twin = copy.deepcopy(module)
    y, _ = module(x, mask)
    other, _ = twin(x, mask.expand_as(x).contiguous())
    _same(other, y)
    for held, theirs in zip(module.buffers(), twin.buffers(), strict=True):
        _same(held, theirs)


@many
@given(_modules())
def test_masks_of_another_shape_are_refused(made):
    module, x, mask = made
    for wrong in (mask[..., :-1], mask[0], mask.repeat(x.shape[0] + 1, *(1,) * (x.dim() - 1))):
        with pytest.raises(CaseError, match=r"mask.shape=.* must be \(1\|"):
            module(x, wrong)


@settings(max_examples=20, deadline=None)
@given(_modules())
def test_companions_are_copied_pickled_and_exported(made):
    module, x, mask = made
    module.eval()
    expected = module(x, mask).output
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x, mask).output, expected)
    exported = torch.export.export(module, (x, mask)).module()
    _same(exported(x, mask)[0], expected)


# -- batch normalisation --------------------------------------------------------------------------


@many
@given(_signals(), st.sampled_from((0.1, None, 1.0)), st.booleans(), st.booleans())
def test_masked_batch_norm_of_ones_is_torchs_over_several_batches(made, momentum, affine, track):
    x, _ = made
    rank, c = x.dim() - 2, x.shape[1]
    x = torch.cat([x, x.flip(-1) * 2])
    options = {
        "momentum": momentum,
        "affine": affine,
        "track_running_stats": track,
        "dtype": x.dtype,
    }
    masked = _of_rank("MaskedBatchNorm", rank)(c, **options)
    plain = getattr(nn, f"BatchNorm{rank}d")(c, **options)
    masked.load_state_dict(plain.state_dict())
    for factor in (1, 2, 3):
        _same(masked(factor * x, torch.ones_like(x[:, :1])).output, plain(factor * x))
    for key, value in plain.state_dict().items():
        _same(masked.state_dict()[key], value)
    masked.eval()
    plain.eval()
    _same(masked(x, torch.ones_like(x)).output, plain(x))


@many
@given(_signals())
def test_statistics_are_those_of_the_present_entries(made):
    x, mask = made
    module = _of_rank("MaskedBatchNorm", x.dim() - 2)(x.shape[1], momentum=1.0, dtype=x.dtype)
    before = copy.deepcopy(module.state_dict())
    module(x, mask)
    for channel in range(x.shape[1]):
        seen = x[:, channel][(mask > 0).expand_as(x)[:, channel]]
        mean, var = module.running_mean[channel], module.running_var[channel]
        _same(mean, seen.mean() if len(seen) else before["running_mean"][channel])
        _same(var, seen.var() if len(seen) > 1 else before["running_var"][channel])
    if not mask.any():
        for key, value in module.state_dict().items():
            assert torch.equal(value, before[key]), key


def test_an_empty_mask_leaves_the_statistics_alone_for_any_momentum():
    for momentum in (0.1, None):
        module = impls.MaskedBatchNorm2d(3, momentum=momentum)
        module(torch.randn(2, 3, 4, 4), torch.ones(2, 1, 4, 4))
        before = copy.deepcopy(module.state_dict())
        y, mask = module(torch.randn(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
        assert not y.any()
        assert not mask.any()
        for key, value in module.state_dict().items():
            assert torch.equal(value, before[key])


def test_batch_norm_takes_vectors_and_checkpoints_of_torchs():
    module = impls.MaskedBatchNorm1d(3)
    module.load_state_dict(nn.BatchNorm1d(3).state_dict())
    x = torch.randn(5, 3)
    _same(module(x, torch.ones(5, 1)).output, nn.BatchNorm1d(3)(x))
    with pytest.raises(ValueError, match="expected 4D input"):
        impls.MaskedBatchNorm2d(3)(x, torch.ones(5, 1))


def test_statistics_in_half_precision_are_summed_in_float32():
    x = torch.full((4, 1, 64, 64), 3.0, dtype=torch.float16)
    module = impls.MaskedBatchNorm2d(1, momentum=1.0)
    y, _ = module(x, torch.ones(4, 1, 64, 64, dtype=torch.bool))
    assert module.running_mean.item() == 3.0  # the plain sum, 49152, times anything overflows
    assert y.dtype == torch.float16


# -- pooling --------------------------------------------------------------------------------------


@st.composite
def _pools(draw):
    x, mask = draw(_signals(least=3))
    rank = x.dim() - 2
    kernel = draw(st.integers(1, 3))
    options = {
        "kernel_size": kernel, "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, kernel // 2)), "ceil_mode": draw(st.booleans()),
    }  # fmt: skip
    kind = draw(st.sampled_from(("Max", "Avg")))
    if kind == "Avg":
        options["count_include_pad"] = draw(st.booleans())
    return (
        _of_rank(f"Masked{kind}Pool", rank)(**options),
        getattr(nn, f"{kind}Pool{rank}d")(**options),
        x,
        mask,
    )


@many
@given(_pools())
def test_pools_of_ones_are_torchs(made):
    masked, plain, x, mask = made
    y, updated = masked(x, torch.ones_like(mask))
    _same(y, plain(x))
    assert updated.all()


@many
@given(_signals(least=4))
def test_pools_see_what_is_present_of_every_window(made):
    x, mask = made
    rank = x.dim() - 2
    x, mask = (v[(..., *(slice(0, 4),) * rank)] for v in (x, mask))
    largest, most = _of_rank("MaskedMaxPool", rank)(2)(x, mask)
    mean, some = _of_rank("MaskedAvgPool", rank)(2)(x, mask)
    present = (mask > 0).expand_as(x)
    for corner in torch.cartesian_prod(*[torch.arange(2)] * rank).view(-1, rank).tolist():
        window = (..., *(slice(2 * i, 2 * i + 2) for i in corner))
        at = (..., *corner)
        for sample in range(x.shape[0]):
            for c in range(x.shape[1]):
                seen = x[sample, c][window][present[sample, c][window]]
                zero = x.new_zeros(())
                _same(largest[sample, c][at], seen.max() if len(seen) else zero)
                _same(mean[sample, c][at], seen.mean() if len(seen) else zero)
    assert torch.equal(most, some)


@many
@given(_signals())
def test_the_mean_is_that_of_what_is_present(made):
    x, mask = made
    y, seen = MaskedMean()(x, mask)
    present = (mask > 0).expand_as(x)
    for sample in range(x.shape[0]):
        for c in range(x.shape[1]):
            entries = x[sample, c][present[sample, c]]
            _same(y[sample, c], entries.mean() if len(entries) else x.new_zeros(()))
    assert torch.equal(seen.expand_as(y) > 0, present.flatten(2).any(2))


def test_pools_name_what_they_do_not_offer():
    with pytest.raises(CaseError, match="return_indices=True must be False"):
        impls.MaskedMaxPool2d(2, return_indices=True)
    with pytest.raises(CaseError, match="divisor_override=3 must be None"):
        impls.MaskedAvgPool2d(2, divisor_override=3)
    with pytest.raises(CaseError, match="must have spatial axes"):
        MaskedMean()(torch.ones(2, 3))


# -- shuffling ------------------------------------------------------------------------------------


@many
@given(_signals(channels=8))
def test_unshuffling_undoes_shuffling(made):
    x, mask = made
    x = x.masked_fill(_hidden(x, mask), 0)
    y, seen = MaskedPixelShuffle(2)(x, mask)
    back, again = MaskedPixelUnshuffle(2)(y, seen)
    assert torch.equal(back, x)
    assert torch.equal(again.expand_as(x), mask.expand_as(x))
    if x.dim() == 4:
        assert torch.equal(y, nn.PixelShuffle(2)(x))
        assert torch.equal(back, nn.PixelUnshuffle(2)(y))


def test_shuffles_name_what_does_not_divide():
    with pytest.raises(CaseError, match="must have a multiple of 8 channels"):
        MaskedPixelShuffle(2)(torch.ones(1, 4, 2, 2, 2))
    with pytest.raises(CaseError, match="must have multiples of 2 as spatial sizes"):
        MaskedPixelUnshuffle(2)(torch.ones(1, 4, 3))


def test_what_carries_a_mask_is_told_by_repr():
    assert repr(MaskedMean(keepdim=True)) == "MaskedMean(keepdim=True)"
    assert repr(MaskedPixelShuffle(2)) == "MaskedPixelShuffle(upscale_factor=2)"
    assert isinstance(MaskedMean()(torch.ones(1, 1, 2)), Carried)
