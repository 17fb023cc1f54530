"""Trained models whose convolutions become the layers of a variant."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from harness.case import CaseError
from impls import convert
from impls.boundary import BoundaryConv2d
from impls.kernel_masked import KernelMaskedConv2d
from impls.masked import MaskedConv2d
from impls.multi_source import MultiSourceConv2d
from impls.partial import PartialConv1d, PartialConv2d, PartialConv3d
from impls.tile_concat import TileConcatConv2d, TileConcatConv3d

# with a mask of the signal or none at all
CALLED_ALONE = ("plain", "kernel_masked", "partial", "masked", "diff", "boundary")
UNCHANGED = {
    "plain": {}, "kernel_masked": {}, "masked": {}, "boundary": {"method": "zeros"},
}  # fmt: skip


def _model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU()),
        nn.Conv2d(8, 4, 1, bias=False),
    )  # fmt: skip


def _signal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


X = _signal(2, 3, 7, 6)


@st.composite
def _convolutions(draw, *, odd, padded):
    rank = draw(st.integers(1, 3))
    side = st.sampled_from((1, 3) if odd else (1, 2, 3))
    groups, stride = draw(st.sampled_from((1, 2))), draw(st.sampled_from((1, 2)))
    kinds = [
        "valid",
        *((0, 1, 2) if padded else (0,)),
        *(("same",) if padded and stride == 1 else ()),
    ]
    torch.manual_seed(draw(st.integers(0, 99)))
    module = getattr(nn, f"Conv{rank}d")(
        2 * groups, 4, tuple(draw(side) for _ in range(rank)), stride, draw(st.sampled_from(kinds)),
        draw(st.sampled_from((1, 2))), groups, draw(st.booleans()),
        draw(st.sampled_from(("zeros", "reflect", "replicate", "circular"))),
        dtype=draw(st.sampled_from((torch.float32, torch.float64, torch.bfloat16))),
    )  # fmt: skip
    size = [draw(st.integers(5, 9)) for _ in range(rank)]
    return module, torch.randn(draw(st.integers(1, 2)), 2 * groups, *size).to(module.weight.dtype)


@settings(max_examples=150, deadline=None)
@given(_convolutions(odd=True, padded=True))
def test_masked_without_a_mask_is_bitwise_the_convolution(made):
    module, x = made
    expected = module(x)
    assert convert(module, "masked")(x).equal(expected)


@settings(max_examples=150, deadline=None)
@given(_convolutions(odd=False, padded=False))
def test_partial_without_mask_and_padding_is_bitwise_the_convolution(made):
    module, x = made
    expected = module(x)
    assert convert(module, "partial")(x).equal(expected)


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_model_computes_what_it_did(name):
    model = _model().eval()
    expected = model(X)
    torch.testing.assert_close(convert(model, name, **UNCHANGED[name])(X), expected)


@pytest.mark.parametrize("name", CALLED_ALONE)
def test_a_converted_model_is_still_itself(name):
    model = _model()
    parameters, state = dict(model.named_parameters()), model.state_dict()
    modules = list(model.modules())
    assert convert(model, name) is model
    assert list(model.modules()) == modules
    assert all(parameter is parameters[key] for key, parameter in model.named_parameters())
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)
    assert model(X).shape == (2, 4, 7, 6)


@pytest.mark.parametrize("name", CALLED_ALONE)
def test_a_converted_model_is_copied_pickled_and_exported(name):
    model = convert(_model().eval(), name)
    expected = model(X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other(X).equal(expected)
    exported = torch.export.export(model, (X,)).module()
    torch.testing.assert_close(exported(X), expected)


def test_an_optimizer_made_before_goes_on():
    model, twin = _model(), _model()
    optimizers = [torch.optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (model, twin)]
    for step in range(4):
        if step == 2:
            convert(model, "masked")
        for m, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            m(X).square().mean().backward()
            optimizer.step()
    for own, others in zip(model.parameters(), twin.parameters(), strict=True):
        assert own.equal(others)


def test_hooks_mode_dtype_device_and_frozen_parameters_stay():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, dtype=torch.float64), nn.Conv2d(4, 4, 1, device="meta")
    )
    model[0].eval().weight.requires_grad_(False)
    model[0].note = "mine"
    seen = []
    model[0].register_forward_hook(lambda _, __, y: seen.append(y))
    convert(model, "partial", implementation="box_filter")
    layer = model[0]
    y = layer(X.double())
    assert len(seen) == 1
    assert seen[0] is y
    assert (layer.training, layer.weight.requires_grad, layer.bias.requires_grad) == (
        False,
        False,
        True,
    )
    assert (layer.note, layer.implementation, model[1].training) == ("mine", "box_filter", True)
    assert layer.weight.dtype is torch.float64
    assert model[1].weight.is_meta


def test_every_rank_has_its_layer_and_the_root_may_be_one():
    for kind, cls in (
        (nn.Conv1d, PartialConv1d),
        (nn.Conv2d, PartialConv2d),
        (nn.Conv3d, PartialConv3d),
    ):
        module = kind(2, 2, 3)
        assert convert(module, "partial") is module
        assert type(module) is cls


def test_a_converted_layer_returns_the_pair_where_it_is_given_a_mask():
    mask = torch.ones_like(X)
    for name, options in (("partial", {}), ("masked", {}), ("masked", {"apply_mask": True})):
        layer = convert(nn.Conv2d(3, 4, 3), name, **options)
        assert torch.is_tensor(layer(X))
        assert layer(X, mask).mask.shape[-2:] == (5, 4)
    always = convert(nn.Conv2d(3, 4, 3), "partial", return_mask=True)
    assert always(X).mask.shape == (1, 1, 5, 4)
    never = convert(nn.Conv2d(3, 4, 3), "masked", return_mask=False)
    assert torch.is_tensor(never(X, mask))
    with pytest.raises(CaseError, match="return_mask='mask' must be True, False or None"):
        MaskedConv2d(3, 4, 3, return_mask="mask")


class _Own(nn.Conv2d):
    pass


def test_what_is_no_plain_convolution_is_left_alone():
    kept = [
        _Own(3, 4, 1),
        nn.ConvTranspose2d(4, 4, 1),
        nn.LazyConv2d(4, 1),
        BoundaryConv2d(4, 4, 1),
    ]
    model, types = nn.Sequential(*kept), [type(module) for module in kept]
    replaced = []
    convert(model, "partial", replaced=replaced)
    assert [type(module) for module in kept] == types
    assert not replaced


def test_where_chooses_and_replaced_tells():
    model, replaced, asked = _model(), [], []

    def where(name, module):
        asked.append(name)
        return module.kernel_size != (1, 1)

    convert(model, "masked", where=where, replaced=replaced)
    assert asked == ["0", "3.0", "4"]  # convolutions alone
    assert replaced == ["0", "3.0"]
    assert [type(model[i]) for i in (0, 4)] == [MaskedConv2d, nn.Conv2d]


def test_a_module_with_two_names_is_converted_once():
    shared, replaced = nn.Conv2d(3, 3, 1), []
    model = nn.ModuleDict({"a": shared, "b": shared})
    convert(model, "plain", replaced=replaced)
    assert model["a"] is model["b"] is shared
    assert replaced == ["a"]


def test_refusals_name_the_module_and_change_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 2, stride=2))
    for name, text in (
        ("boundary", r"1=Conv2d\(.*cannot become BoundaryConv2d: .*must be"),
        ("masked", r"1=Conv2d\(.*: kernel_size=\(2, 2\) must be odd .*where=lambda"),
    ):
        with pytest.raises(CaseError, match=text):
            convert(model, name)
        assert [type(module) for module in model] == [nn.Conv2d, nn.Conv2d]
    with pytest.raises(CaseError, match=r"0=.*unexpected keyword argument 'colour'"):
        convert(model, "partial", colour=1)
    with pytest.raises(
        CaseError, match=r"variant='partail' must be one of .* did you mean 'partial'\?"
    ):
        convert(model, "partail")
    with pytest.raises(CaseError, match=r"padding=\(0, 0\) must be dilation"):
        convert(nn.Conv2d(3, 4, 3), "diff")
    with pytest.raises(CaseError, match="padding_mode='reflect' must be 'zeros'"):
        convert(nn.Conv2d(3, 4, 3, padding_mode="reflect"), "window_masked")


def test_random_numbers_are_left_where_they_are():
    model = _model()
    state = torch.get_rng_state()
    convert(model, "diff", train_edge_kernel=True)
    assert torch.get_rng_state().equal(state)


def test_parametrized_convolutions_are_converted():
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    expected = model(X)
    convert(model, "masked")
    assert isinstance(model[0], MaskedConv2d)
    assert model(X).equal(expected)
    model[0].parametrizations.weight.original0.data.mul_(2)
    torch.testing.assert_close(
        model(X) - model[0].bias.view(-1, 1, 1), 2 * (expected - model[0].bias.view(-1, 1, 1))
    )


def test_convolutions_with_a_normed_or_pruned_weight_are_converted():
    torch.manual_seed(0)
    normed, pruned = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(3, 4, 3)
    prune.random_unstructured(pruned, "weight", 0.5)
    for module in (normed.eval(), pruned):
        expected, names = module(X), list(module.state_dict())
        convert(module, "masked")
        assert module(X).equal(expected)
        assert list(module.state_dict()) == names


def test_what_a_convolution_lacks_begins_with_what_it_has():
    module = nn.Conv2d(3, 4, 3, padding=1)
    edged = convert(copy.deepcopy(module), "diff", train_edge_kernel=True)
    torch.testing.assert_close(edged(X), convert(copy.deepcopy(module), "diff")(X))
    assert edged.edge_kernel.requires_grad
    expected = module(X)
    torch.testing.assert_close(
        convert(copy.deepcopy(module), "boundary", method="explicit")(X), expected
    )
    cross = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    crossed = convert(copy.deepcopy(module), "kernel_masked", kernel_mask=cross)
    assert isinstance(crossed, KernelMaskedConv2d)
    assert list(crossed.state_dict()) == ["weight", "bias"]
    torch.testing.assert_close(
        crossed(X), nn.functional.conv2d(X, module.weight * cross, module.bias, padding=1)
    )


# -- several sources ------------------------------------------------------------------------------

SOURCES = (_signal(2, 2, 6, 5), _signal(2, 4, 6), _signal(2, 2, 5), _signal(2, 2))


class _Block(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.first = TileConcatConv2d((2, 4, 2, 2), 4, 3, **options)

    def forward(self, *sources):
        return self.first(*sources).relu()


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"padding": 1, "padding_mode": "circular"}])
def test_a_trained_block_of_tiled_sources_converts_and_back(options):
    model = _Block(**options).eval()
    expected, replaced = model(*SOURCES), []
    count = sum(p.numel() for p in model.parameters())
    convert(model, "multi_source", replaced=replaced)
    assert replaced == ["first"]
    assert type(model.first) is MultiSourceConv2d
    assert not model.first.training
    assert sum(p.numel() for p in model.parameters()) < count
    torch.testing.assert_close(model(*SOURCES), expected)
    convert(model, "tile_concat")
    assert type(model.first) is TileConcatConv2d
    torch.testing.assert_close(model(*SOURCES), expected)


def test_a_block_that_zero_padding_reaches_says_why_not():
    model = _Block(padding=1)
    with pytest.raises(CaseError, match=r"first=Tile.*cannot become MultiSourceConv2d: padding=\(1, 1\) "
                       "must be 0 on spatial axis .* zero padding cuts them off"):  # fmt: skip
        convert(model, "multi_source")
    assert type(model.first) is TileConcatConv2d
    with pytest.raises(CaseError, match="'multi_source' takes the place of tile_concat layers"):
        convert(_model(), "multi_source")
    wide = MultiSourceConv2d((2, 4, 2, 2), 4, 3, padding=2)
    with pytest.raises(
        CaseError, match=r"model=MultiSourceConv2d.*zero padding cuts off every tap"
    ):
        convert(wide, "tile_concat")


def test_a_block_may_be_the_model_itself_and_its_hooks_stay():
    block, seen = TileConcatConv3d((2, *(0,) * 6, 2), 4, 1), []
    block.register_forward_hook(lambda *_: seen.append(1))
    block.requires_grad_(False)
    volume, scalar = _signal(2, 2, 3, 4, 5), _signal(2, 2)
    expected = block(volume, scalar=scalar)
    made = convert(block, "multi_source")
    assert made is not block
    torch.testing.assert_close(made(volume, scalar=scalar), expected)
    assert len(seen) == 2
    assert not any(p.requires_grad for p in made.parameters())
