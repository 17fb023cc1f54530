"""The masked layer: its mask, its cost without one, what it can take the place of."""

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx

from harness.claim import Answer, Judgement, claim, decide, decide_on
from harness.meter import Count
from properties.claims._tools import (
    MASKED_TORCH,
    cases_of,
    coins,
    counted,
    experiment,
    held,
    largest_difference,
    normal,
    variant,
    whole,
)

SHAPE, CHANNELS = (2, 4, 9, 8), 4


def _updated(name: str, mask: Tensor, *, c_out: int = 6) -> Tensor:
    """Return the mask that a 3x3 layer of padding 1 hands on."""
    weight = whole(c_out, mask.shape[1], 3, 3, seed=1)
    signal = torch.zeros(mask.shape, dtype=mask.dtype)
    return variant(name).functional(signal, weight, None, mask, padding=1).mask


@claim(
    "000.4", MASKED_TORCH,
    "MaskedConv treats its mask with a 1x1 convolution whose weights come from its own.",
    Answer.TRUE,
)  # fmt: skip
def mask_is_a_pointwise_convolution() -> Judgement:
    """Compare with torch's 1x1 convolution by the normalised sums of absolute weights."""
    mask, weight = coins(*SHAPE), whole(6, CHANNELS, 3, 3, seed=1)
    share = weight.abs().sum((2, 3), keepdim=True)
    # sums of whole numbers are exact; one division rounds alike on both sides
    expected = torch.conv2d(mask, share) / share.sum(1)[:, 0, 0].view(-1, 1, 1)
    got = _updated("masked", mask)
    return decide(
        torch.equal(got, expected),
        f"largest difference {largest_difference(got, expected)} over {got.numel()} entries "
        "(3x3, padding 1)",
    )


@claim(
    "000.5", MASKED_TORCH,
    "MaskedConv scales every input channel's part of the mask by that channel alone.", Answer.TRUE,
)  # fmt: skip
def mask_is_scaled_by_channel() -> Judgement:
    """Judge that the mask is linear in the mask of each channel, by the law of weights."""
    found = experiment("M10", "masked"), experiment("M5", "masked")
    return decide(held(*found), f"laws M10 and M5 hold in {cases_of(*found)} cases")


def _reach(name: str) -> int:
    """Return how many positions of the new mask change when one position of the old one does."""
    nothing = torch.zeros(1, CHANNELS, 9, 9, dtype=torch.float64)
    something = nothing.clone()
    something[..., 4, 4] = 1
    return int((_updated(name, nothing) != _updated(name, something)).any(1).sum())


@claim(
    "000.6", MASKED_TORCH,
    "MaskedConv does not blur the mask over positions as PartialConv does.", Answer.TRUE,
)  # fmt: skip
def mask_is_not_blurred() -> Judgement:
    """Change one position of the mask and count the positions of the next mask that change."""
    masked, partial = _reach("masked"), _reach("partial")
    return decide(
        masked == 1 < partial,
        f"one position of the mask reaches {masked} position of the next mask, with PartialConv "
        f"{partial} (3x3, padding 1)",
    )


@claim(
    "000.7", MASKED_TORCH, "A mask of zeros and ones stays one from layer to layer.",
    Answer.TRUE_ON, domain="masks that are the same in all channels",
)  # fmt: skip
def mask_stays_binary() -> Judgement:
    """Look at the values of the next mask, for a mask per channel and for one for all."""
    shared = _updated("masked", coins(2, 1, 9, 8)).unique().tolist()
    mixed = _updated("masked", coins(*SHAPE)).unique()
    between = mixed[(mixed > 0) & (mixed < 1)]
    return decide_on(
        set(shared) <= {0.0, 1.0},
        not len(between),
        f"one mask for all channels gives {shared}; a mask per channel gives {len(between)} "
        f"values between, the first {float(between[0]) if len(between) else 0:.3g}",
    )


@claim(
    "000.8", MASKED_TORCH, "MaskedConv takes the place of a trained regular layer.",
    Answer.TRUE_ON, domain="odd kernels, and a caller that takes the pair (output, mask)",
)  # fmt: skip
def masked_is_a_drop_in() -> Judgement:
    """Load a trained layer's state strictly and compare, then try an even kernel and a chain."""
    masked, image = variant("masked").MaskedConv2d, whole(2, 3, 9, 8).float()
    same = 0
    for stride in (1, 2, 3):
        for padding in (0, 1, 2):
            options = {"stride": stride, "padding": padding}
            trained, own = nn.Conv2d(3, 5, 3, **options), masked(3, 5, 3, **options)
            with torch.no_grad():
                for parameter in trained.parameters():
                    parameter.copy_((parameter * 16).round())
            own.load_state_dict(trained.state_dict(), strict=True)
            outputs = own(image)[0], own(image, torch.ones_like(image))[0]
            same += all(torch.equal(y, trained(image)) for y in outputs)
    failures = {}
    for name, attempt in {
        "a 2x2 kernel": lambda: masked(3, 5, 2)(image),
        "Sequential(layer, ReLU)": lambda: nn.Sequential(masked(3, 5, 3), nn.ReLU())(image),
    }.items():
        try:
            attempt()
        except (TypeError, ValueError) as error:
            failures[name] = type(error).__name__
    raised = ", ".join(f"{name} raises {error}" for name, error in failures.items())
    return decide_on(
        same == 9, not failures,
        f"{same} of 9 geometries give the trained layer's output, with a mask of ones and without; "
        f"{raised}",
    )  # fmt: skip


@claim(
    "000.9", MASKED_TORCH, "MaskedConv takes the place of PartialConv.",
    Answer.TRUE_ON, domain="the call and the output's shape; not the values, not even the mask's",
)  # fmt: skip
def masked_replaces_partial() -> Judgement:
    """Call both alike and compare shapes, values and masks."""
    x, weight, mask = normal(*SHAPE), normal(6, CHANNELS, 3, 3), coins(*SHAPE)
    ours, theirs = (
        variant(name).functional(x * mask, weight, None, mask, padding=1)
        for name in ("masked", "partial")
    )
    difference = largest_difference(ours.output, theirs.output)
    return decide_on(
        ours.output.shape == theirs.output.shape, difference == 0,
        f"output shapes {tuple(ours.output.shape)} and {tuple(theirs.output.shape)}, values up to "
        f"{difference:.3g} apart, mask channels {ours.mask.shape[1]} and {theirs.mask.shape[1]}",
    )  # fmt: skip


@claim("000.10", MASKED_TORCH, "Without a mask MaskedConv costs nothing extra.", Answer.TRUE)
def no_mask_is_free() -> Judgement:
    """Count what a forward and a backward pass cost."""
    x = normal(*SHAPE).requires_grad_()

    def cost(layer: nn.Module) -> Count:
        def step() -> None:
            x.grad = None
            layer.zero_grad()
            y = layer(x)
            (y if isinstance(y, Tensor) else y[0]).sum().backward()

        return counted(step, x, *layer.parameters())

    ours = cost(variant("masked").MaskedConv2d(CHANNELS, 6, 3, padding=1).double())
    theirs = cost(nn.Conv2d(CHANNELS, 6, 3, padding=1).double())
    return decide(
        ours == theirs,
        f"operators, operations and peak of bytes, forward and backward: {ours.kernels}, "
        f"{ours.flops}, {ours.peak_bytes}; Conv2d {theirs.kernels}, {theirs.flops}, "
        f"{theirs.peak_bytes}",
    )


@claim(
    "000.11", MASKED_TORCH,
    "Images of different sizes can share a batch: padded and masked, each gives what it gives alone.",
    Answer.TRUE_ON, domain="holes that the layer masks (`apply_mask`) or that hold zeros already",
)  # fmt: skip
def sizes_can_be_mixed() -> Judgement:
    """Put garbage into the padding of a smaller image, with the mask applied and without."""
    inside = experiment("M9", "masked")
    layer, image = variant("masked").functional, whole(1, 1, 4, 4)
    weight, alone = torch.ones(1, 1, 3, 3, dtype=torch.float64), {}
    batch, mask = torch.full((1, 1, 4, 6), 7.0, dtype=torch.float64), torch.zeros(1, 1, 4, 6)
    batch[..., :4], mask[..., :4] = image, 1
    alone = layer(image, weight, None, torch.ones_like(image), padding=1).output
    y = layer(batch, weight, None, mask.double(), padding=1).output[..., :4]
    return decide_on(
        held(inside), torch.equal(y, alone),
        f"law M9 holds in {inside.cases} cases; with 7 in the padding and the mask not applied, the "
        f"last column is {y[0, 0, :, -1].tolist()} instead of {alone[0, 0, :, -1].tolist()}",
    )  # fmt: skip


@claim("000.12", MASKED_TORCH, "There is no lazy form of the layer.", Answer.FALSE)
def lazy_form_is_missing() -> Judgement:
    """Call the lazy layer once."""
    layer = variant("masked").LazyMaskedConv2d(6, 3)
    layer(torch.zeros(SHAPE))
    return decide(
        tuple(layer.weight.shape) != (6, CHANNELS, 3, 3),
        f"LazyMaskedConv2d(6, 3) has a weight of shape {tuple(layer.weight.shape)} after a call "
        f"with {CHANNELS} channels",
    )


@claim(
    "000.13", MASKED_TORCH, "In-place operators stand in the way of exporting the layer to ONNX.",
    Answer.FALSE,
)  # fmt: skip
def in_place_operators_prevent_export() -> Judgement:
    """Record a call with a mask and list the operators that change what they are given."""
    layer = variant("masked").MaskedConv2d(CHANNELS, 6, 3, padding=1)
    graph = make_fx(layer)(whole(*SHAPE).float(), coins(*SHAPE).float()).graph
    called = [node.target for node in graph.nodes if node.op == "call_function"]
    schemas = [target._schema for target in called if isinstance(target, OpOverload)]
    mutable = sorted({schema.name for schema in schemas if schema.is_mutable})
    return decide(
        bool(mutable),
        f"{', '.join(mutable) or 'none'} of {len(schemas)} operators in place",
    )
