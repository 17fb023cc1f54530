import pytest
import torch

from impls.kernel_masked import functional, tap_plan
from impls.kernel_masked.tap_plan import Geometry, make_plan

PIXELCNN = torch.tensor([1.0] * 17 + [0] * 18).view(5, 7)
CHECKERBOARD = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])


def _ints(*size):
    return torch.randint(-3, 4, size).float().requires_grad_()


def _gradients(tensors, **options):
    y = functional(*tensors[:3], **options)
    return y, *torch.autograd.grad(y, tensors, torch.ones_like(y).cumsum(-1) % 5)


def _kept(mask):
    return tuple(value > 0 for value in mask.flatten().tolist())


@pytest.mark.parametrize(
    ("size", "mask", "options"),
    [
        ((30,), torch.tensor([1.0, 0, 1, 1, 0]), {"padding": 2}),
        ((31,), torch.tensor([1.0, 0, 1, 1, 0]), {"stride": 3, "dilation": 2}),
        ((17, 12), PIXELCNN, {"padding": (2, 3)}),
        ((17, 13), PIXELCNN, {"padding": (2, 3), "stride": (2, 3)}),
        ((17, 13), CHECKERBOARD, {"padding": (0, 2), "dilation": (3, 1), "stride": 2}),
        ((9, 6, 5), CHECKERBOARD.expand(2, 3, 3), {"padding": 1, "stride": (2, 1, 1)}),
    ],
)
@pytest.mark.parametrize("block", [1, 1 << 10, 1 << 19])
@pytest.mark.parametrize("filters", [1, 60])
def test_any_blocks_and_any_products_have_the_exact_sums(
    size, mask, options, block, filters, monkeypatch
):
    monkeypatch.setattr(tap_plan, "BLOCK", block)
    monkeypatch.setattr(tap_plan, "FEWEST", 1)
    # channels that tell the plans of these blocks from all others, which are kept
    channels = 2 + [1, 1 << 10, 1 << 19].index(block)
    tensors = _ints(2, channels, *size), _ints(filters, channels, *mask.shape), _ints(filters)
    options = {"kernel_mask": mask, **options}
    found = _gradients(tensors, implementation="tap_products", **options)
    expected = _gradients(tensors, implementation="multiplied_weight", **options)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("channels", "filters", "products"), [(64, 8, 3), (2, 64, 1)])
def test_rows_of_the_kernel_share_copies_where_those_are_dear(channels, filters, products):
    geometry = Geometry(channels, (36, 38), (5, 7), (1, 1), (1, 1))
    plan = make_plan(_kept(PIXELCNN), filters, geometry)
    assert len(plan.products) == products
    assert sum(one.columns for one in plan.products) == 17 * channels


def test_large_images_are_computed_in_blocks_that_the_cache_holds():
    geometry = Geometry(64, (130, 130), (3, 3), (1, 1), (1, 1))
    plan = make_plan(_kept(CHECKERBOARD), 64, geometry)
    assert len(plan.blocks) > 1
    assert sum(block.outputs for block in plan.blocks) == 128 * 128
    assert plan.room <= tap_plan.BLOCK
