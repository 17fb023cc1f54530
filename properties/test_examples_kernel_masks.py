"""Worked examples of the convolution with masked taps: the document's own, named masks, layers."""

import copy
import importlib
import pickle
from dataclasses import replace
from itertools import product
from math import prod

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from harness.case import CaseError
from harness.effort import Profile
from harness.results import Outcome
from harness.search import search
from harness.table import load_table
from properties.laws.geometry import MIRRORS

# loaded by name, as the table does it: properties know no variant
kernel_masked = importlib.import_module("impls.kernel_masked")
masks = importlib.import_module("impls.kernel_masked.named_masks")
covers = importlib.import_module("impls.kernel_masked.lattice_cover")
VARIANT, functional = kernel_masked.VARIANT, kernel_masked.functional

CROSS = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
NAMES = [i.name for i in VARIANT.implementations if not i.requirements()]


def _drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- the document's example ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_cross_of_the_document(name):
    mask = CROSS.expand(3, 3, 3)
    x, weight, bias = _drawn(1, 1, 6, 6, 6), _drawn(8, 1, 3, 3, 3, seed=1), _drawn(8, seed=2)
    padded = torch.nn.functional.pad(x, (1,) * 6)
    expected = torch.zeros(1, 8, 6, 6, 6, dtype=torch.float64)
    for place in product(range(6), repeat=3):
        window = padded[(0, 0, *(slice(q, q + 3) for q in place))]
        for o in range(8):
            kept = [float(window[tuple(u)] * weight[(o, 0, *u)]) for u in mask.nonzero().tolist()]
            expected[(0, o, *place)] = sum(kept) + float(bias[o])
    got = functional(x, weight, bias, mask, padding=1, implementation=name)
    torch.testing.assert_close(got, expected)


def test_question_of_the_document_no_bias_where_the_pattern_misses_the_cross():
    """A patch `101/000/101` touches no tap of the cross: 0 with 'support', the bias with 'all'."""
    x = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 0, 1]]).view(1, 1, 3, 3)
    weight, bias = torch.ones(1, 1, 3, 3), torch.tensor([5.0])
    for name in NAMES:
        assert functional(x, weight, bias, CROSS, implementation=name).item() == 5
        assert (
            functional(x, weight, bias, CROSS, bias_where="support", implementation=name).item()
            == 0
        )


# -- named masks ---------------------------------------------------------------------------------


def test_named_masks_look_as_they_are_called():
    assert masks.cross((3, 3)).equal(CROSS)
    assert masks.cross((3, 3, 3), axes=(1, 2)).equal(CROSS.expand(3, 3, 3))
    assert masks.cross((3, 3, 3)).sum() == 7
    assert masks.centre((3, 5)).nonzero().tolist() == [[1, 2]]
    assert masks.checkerboard((3, 3)).int().tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert masks.causal((4,)).int().tolist() == [1, 1, 1, 0]
    assert masks.causal((3, 2), axis=1).all()
    assert masks.lattice((3, 4)).nonzero().tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]
    assert masks.box((4,), [1], [3]).int().tolist() == [0, 1, 1, 0]
    assert masks.pixelcnn((3, 3), "A").int().tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert masks.pixelcnn((3, 3), "B").int().tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert masks.pixelcnn((3, 3, 3), "B").flatten().int().tolist() == [1] * 14 + [0] * 13


def test_pixelcnn_follows_the_order_of_colours_at_the_centre():
    strict, weak = (masks.pixelcnn((3, 3), kind, (3, 3))[:, :, 1, 1].int() for kind in "AB")
    assert strict.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert weak.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert masks.pixelcnn((3,), "B", (6, 3))[:, 2, 1].int().tolist() == [0, 0, 0, 0, 1, 1]
    assert masks.pixelcnn((3,), "A", (4, 4), groups=2, colours=4)[:, :, 1].int().tolist() == [
        [0, 0], [1, 0], [0, 0], [1, 0]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masks.pixelcnn((3,), "C"), "kind='C' must be 'A' or 'B'"),
        (lambda: masks.pixelcnn((3,), "A", (3, 4), groups=2), "must be multiples of groups=2"),
        (lambda: masks.box((3,), [1], [4]), "must be a box inside 3 taps"),
    ],
)
def test_named_masks_say_what_is_wrong(make, message):
    with pytest.raises(CaseError, match=message):
        make()


# -- covers --------------------------------------------------------------------------------------


def _cover(mask):
    return tuple(mask.shape), tuple(mask.flatten().tolist())


@pytest.mark.parametrize(
    ("mask", "lattices"),
    [
        (torch.ones(5, 5, dtype=torch.bool), 1),
        (masks.lattice((5, 5)), 1),
        (masks.checkerboard((5, 5)), 2),
        (masks.cross((7, 7)), 3),
        (masks.pixelcnn((7, 7), "B"), 2),
        (torch.zeros(3, 3, dtype=torch.bool), 0),
    ],
)
def test_named_masks_are_few_lattices(mask, lattices):
    assert len(covers.partition(*_cover(mask))) == lattices


@pytest.mark.parametrize("size", [(7,), (4, 5), (3, 3, 3), (60, 60)])
def test_lattices_partition_the_kept_taps(size):
    mask = torch.rand(size, generator=torch.Generator().manual_seed(3)) < 0.4
    painted = torch.zeros(size)
    for part in covers.partition(*_cover(mask)):
        painted[part.slices] += 1
    assert painted.equal(mask.float())
    whole = torch.zeros(size)
    whole[covers.hull(*_cover(mask)).slices] = 1
    assert whole[mask].all()


@pytest.mark.parametrize(
    "mask", [CROSS, masks.lattice((5, 5)), masks.pixelcnn((7, 7), "B"), masks.centre((4, 3))]
)
@pytest.mark.parametrize("name", ["disjoint_lattices", "kept_taps"])
def test_flops_are_the_kept_share(name, mask):
    size = tuple(mask.shape)
    x, weight = torch.randn(2, 4, 9, 9), torch.randn(6, 4, *size)
    with FlopCounterMode(display=False) as counter:
        y = functional(x, weight, None, mask, padding=1, implementation=name)
    assert counter.get_total_flops() == 2 * y.numel() * 4 * int(mask.sum())


def test_cheapest_cover_takes_the_parts_where_they_pay():
    # whole numbers: both ways of summing are exact, so they must be equal
    x = torch.randint(-4, 5, (1, 32, 32, 32)).float()
    weight, mask = torch.randint(-2, 3, (32, 32, 7, 7)).float(), masks.cross((7, 7))
    with FlopCounterMode(display=False) as counter:
        y = functional(x, weight, None, mask, padding=3, implementation="cheapest_cover")
    assert counter.get_total_flops() == 2 * 32 * 32 * 32 * 32 * int(mask.sum())
    expected = functional(x, weight, None, mask, padding=3, implementation="multiplied_weight")
    assert torch.equal(y, expected)


# -- sharpness -----------------------------------------------------------------------------------


def test_flips_need_strides_that_fit():
    """G10 claimed without its domain is refuted, by an image of two pixels and a stride of two."""
    claims_too_much = replace(MIRRORS, within=None, domain="every case")
    finding = search(
        claims_too_much, VARIANT, VARIANT.reference, Profile(cases=200),
        variants=load_table().variants,
    )  # fmt: skip
    assert finding.outcome is Outcome.REFUTED
    case = finding.case
    assert (prod(case.in_size), case.taps, prod(case.stride)) == (2, 1, 2)
    assert (case.n, case.c_in, case.c_out, sum(case.padding)) == (1, 1, 1, 0)


# -- layers --------------------------------------------------------------------------------------


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NAMES)
def test_no_optimizer_lets_a_masked_tap_act(optimizer, name):
    """K9: as if the masked taps were not there, whatever the optimizer does to what is stored."""
    torch.manual_seed(0)
    layer = kernel_masked.KernelMaskedConv2d(
        2, 3, 3, padding=1, kernel_mask=CROSS, implementation=name
    ).double()
    start = copy.deepcopy(layer.state_dict())
    junk = copy.deepcopy(layer)
    with torch.no_grad():
        junk.weight.masked_fill_(~CROSS, 1e6)
    x, target = _drawn(4, 2, 5, 5), _drawn(4, 3, 5, 5, seed=1)
    for model in (layer, junk):
        step = OPTIMIZERS[optimizer](model.parameters())
        for _ in range(5):
            step.zero_grad()
            (model(x) - target).square().mean().backward()
            assert model.weight.grad.masked_fill(CROSS, 0).count_nonzero() == 0
            step.step()
        assert model.kernel_mask.equal(CROSS)
    assert not layer.weight.equal(start["weight"])
    assert layer(x).equal(junk(x))


@pytest.mark.parametrize("name", NAMES)
def test_equals_pruned_and_parametrized_layers(name):
    """K12: the mask as `torch.nn.utils` would apply it."""
    layer = kernel_masked.KernelMaskedConv2d(
        3, 4, 3, padding=1, kernel_mask=CROSS, implementation=name
    ).double()
    pruned = nn.Conv2d(3, 4, 3, padding=1).double()
    pruned.load_state_dict(layer.state_dict())
    parametrized = copy.deepcopy(pruned)
    prune.custom_from_mask(pruned, "weight", CROSS.expand(4, 3, 3, 3))

    class Mask(nn.Module):
        def forward(self, weight):
            return weight * CROSS

    parametrize.register_parametrization(parametrized, "weight", Mask())
    x = _drawn(2, 3, 6, 6)
    y = layer(x)
    y.square().sum().backward()
    for other, stored in ((pruned, "weight_orig"), (parametrized, None)):
        z = other(x)
        z.square().sum().backward()
        weight = getattr(other, stored) if stored else other.parametrizations.weight.original
        torch.testing.assert_close(y, z)
        torch.testing.assert_close(layer.weight.grad, weight.grad)


@pytest.mark.parametrize(
    ("cls", "plain", "mask"),
    [
        (kernel_masked.KernelMaskedConv1d, nn.Conv1d, masks.causal((3,))),
        (kernel_masked.KernelMaskedConv2d, nn.Conv2d, CROSS),
        (kernel_masked.KernelMaskedConv3d, nn.Conv3d, masks.cross((3, 3, 3))),
    ],
)
def test_checkpoints_of_torch_load_and_cannot_change_the_mask(cls, plain, mask):
    layer, other = cls(2, 4, 3, padding=1, kernel_mask=mask), plain(2, 4, 3, padding=1)
    layer.load_state_dict(other.state_dict(), strict=True)
    other.load_state_dict(layer.state_dict(), strict=True)
    assert layer.state_dict().keys() == other.state_dict().keys()
    with pytest.raises(RuntimeError, match="kernel_mask"):
        layer.load_state_dict({**other.state_dict(), "kernel_mask": ~mask})
    layer.load_state_dict({**other.state_dict(), "kernel_mask": ~mask}, strict=False)
    assert layer.kernel_mask.equal(mask)


def test_mask_survives_copies_dtypes_and_devices():
    layer = kernel_masked.KernelMaskedConv2d(
        2, 4, 3, kernel_mask=CROSS.float(), bias_where="support"
    )
    x = torch.randn(1, 2, 5, 5)
    y = layer(x)
    assert copy.deepcopy(layer)(x).equal(y)
    assert pickle.loads(pickle.dumps(layer))(x).equal(y)
    torch.testing.assert_close(copy.deepcopy(layer).double()(x.double()).float(), y)
    assert copy.deepcopy(layer).to("meta")(x.to("meta")).shape == y.shape
    revived = copy.deepcopy(layer).to("meta").to_empty(device="cpu")
    revived.load_state_dict(layer.state_dict())
    assert revived(x).equal(y)


def test_layer_keeps_its_own_mask():
    given = CROSS.clone()
    layer = kernel_masked.KernelMaskedConv2d(1, 1, 3, kernel_mask=given)
    given.fill_(True)
    assert layer.kernel_mask.equal(CROSS)


def test_fractions_stay_in_a_mask():
    layer = kernel_masked.KernelMaskedConv1d(
        1, 1, 2, bias=False, kernel_mask=torch.tensor([0.5, 0.0])
    )
    nn.init.ones_(layer.weight)
    assert layer(torch.tensor([[[4.0, 9.0]]])).item() == 2
    assert layer.double().kernel_mask.tolist() == [0.5, 0]


def test_no_mask_keeps_every_tap():
    layer, plain = (
        kernel_masked.KernelMaskedConv2d(2, 3, 3, padding="same"),
        nn.Conv2d(2, 3, 3, padding=1),
    )
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(layer(x), plain(x))


def test_lazy_layer_takes_a_mask_of_filters():
    layer = kernel_masked.LazyKernelMaskedConv2d(
        2, 3, kernel_mask=torch.stack([CROSS, ~CROSS])[:, None]
    )
    assert layer(torch.randn(1, 5, 4, 4)).shape == (1, 2, 2, 2)
    assert type(layer) is kernel_masked.KernelMaskedConv2d


@pytest.mark.parametrize("where", ["all", "support"])
def test_layer_can_be_exported(where):
    layer = kernel_masked.KernelMaskedConv2d(
        2, 3, 3, padding=1, kernel_mask=CROSS, bias_where=where
    ).eval()
    x = torch.randn(1, 2, 5, 5)
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_mask": CROSS[:2]}, r"kernel_mask.shape=\(2, 3\) must be \(3, 3\) or \(1, 1, 3, 3\)"),
        ({"kernel_mask": CROSS.expand(3, 1, 3, 3)}, r"kernel_mask.shape=\(3, 1, 3, 3\) must be"),
        ({"kernel_mask": 2.0 * CROSS}, r"kernel_mask must hold values in \[0, 1\]"),
        ({"bias_where": "some"}, "bias_where=some must be one of all, support"),
        ({"implementation": "magic"}, "implementation='magic' must be one of multiplied_weight"),
        ({"mask": torch.ones(1, 3, 4, 4)}, r"mask.shape=\(1, 3, 4, 4\) must be \(1, 2, 4, 4\)"),
    ],
)  # fmt: skip
def test_functional_says_what_is_wrong(options, message):
    x, weight = torch.randn(1, 2, 4, 4), torch.randn(2, 2, 3, 3)
    with pytest.raises(CaseError, match=message):
        functional(x, weight, None, **{"kernel_mask": CROSS, **options})


def test_layer_says_what_is_wrong():
    with pytest.raises(CaseError, match=r"kernel_mask.shape=\(3, 3\) must end in kernel_size"):
        kernel_masked.KernelMaskedConv2d(1, 1, (3, 5), kernel_mask=CROSS)
