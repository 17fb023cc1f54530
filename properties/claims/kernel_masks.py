"""Masked locations of a kernel: what the module of the thread does, and what it was meant to do."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from harness.claim import Answer, Judgement, claim, decide, decide_on
from harness.tolerance import UNIT_ROUNDOFF, gamma
from properties.claims._tools import (
    FORUM,
    cases_of,
    coins,
    experiment,
    held,
    largest_difference,
    variant,
    whole,
)

STEPS = 5
CROSS = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
PRISM = CROSS.expand(3, 3, 3)
OPTIMIZERS = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdamW with weight decay": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


class _Replaces(nn.Module):
    """Multiplies its weight by the mask into a new Parameter: once, or before every convolution."""

    def __init__(self, *, every_time: bool) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 8, 3, padding=1)
        self.register_buffer("kept", PRISM.float())
        self.every_time = every_time
        self._replace()

    def _replace(self) -> None:
        self.conv.weight = nn.Parameter((self.conv.weight * self.kept).detach())

    def forward(self, x: Tensor) -> Tensor:
        if self.every_time:
            self._replace()
        return self.conv(x)


def _train(layer: nn.Module, optimizer: Any, steps: int = STEPS) -> None:
    image = whole(1, 1, 6, 6, 6).float()
    for _ in range(steps):
        optimizer.zero_grad()
        layer(image).square().mean().backward()
        optimizer.step()


@claim(
    "001.1", FORUM,
    "Masking the weight once, when the layer is made, keeps the masked locations out of training.",
    Answer.FALSE,
)  # fmt: skip
def masking_once_lasts() -> Judgement:
    """Take one step of gradient descent."""
    layer = _Replaces(every_time=False)
    _train(layer, torch.optim.SGD(layer.parameters(), lr=0.1), steps=1)
    moved = (layer.conv.weight.detach() * (1 - layer.kept)).abs()
    return decide(
        not bool(moved.any()),
        f"after 1 step of SGD {int((moved > 0).sum())} of {int(8 * (PRISM == 0).sum())} masked "
        f"weights are no longer 0, the largest {float(moved.max()):.3g}",
    )


@claim(
    "001.2", FORUM,
    "A module that replaces its Parameter by the masked one before every use trains under a "
    "constant mask.",
    Answer.FALSE,
)  # fmt: skip
def replacing_the_parameter_trains() -> Judgement:
    """Train it with an optimizer made before, and look at what the optimizer holds."""
    layer = _Replaces(every_time=True)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    held_before, before = layer.conv.weight, layer.conv.weight.detach().clone()
    _train(layer, optimizer)
    masked = not bool((layer.conv.weight * (1 - layer.kept)).any())
    moved = largest_difference(layer.conv.weight.detach(), before)
    return decide(
        masked and moved > 0,
        f"after {STEPS} steps the mask is {'kept' if masked else 'lost'}, but the weight moved by "
        f"{moved}: the optimizer {'holds' if held_before is layer.conv.weight else 'does not hold'} "
        "the Parameter that the module uses",
    )


@claim(
    "001.3", FORUM, "With a constant mask, masked locations have no part in learning.", Answer.TRUE
)
def masked_taps_never_learn() -> Judgement:
    """Train our layer under three optimizers, and compare with one whose masked taps hold NaN."""
    inert = 0
    for make in OPTIMIZERS.values():
        layer = variant("kernel_masked").KernelMaskedConv3d(1, 8, 3, padding=1, kernel_mask=PRISM)
        before = layer.weight.detach().clone()
        _train(layer, make(layer.parameters()))
        gradient = layer.weight.grad * (1 - PRISM)
        moved = bool((layer.weight.detach() != before)[..., PRISM > 0].all())
        image = whole(1, 1, 6, 6, 6, seed=1).float()
        y = layer(image)
        with torch.no_grad():
            layer.weight[..., PRISM == 0] = float("nan")
        inert += moved and not bool(gradient.any()) and torch.equal(layer(image), y)
    law = experiment("K8", "kernel_masked")
    return decide(
        inert == len(OPTIMIZERS) and held(law),
        f"{STEPS} steps of {', '.join(OPTIMIZERS)}: kept taps move, masked ones have gradient 0 and "
        f"NaN stored there changes nothing in {inert} of {len(OPTIMIZERS)}; law K8 holds in "
        f"{law.cases} cases",
    )


@claim(
    "001.4", FORUM, "A run on a tensor of ones shows whether the mask acts as it should.",
    Answer.TRUE_ON, domain="a mask that is forgotten; not one that is shifted, unless padding shows it",
)  # fmt: skip
def ones_show_the_mask() -> Judgement:
    """Run the right mask, no mask and a shifted one on ones, unpadded."""
    ones, weight = torch.ones(1, 1, 6, 6, 6), torch.ones(1, 1, 3, 3, 3)
    layer = variant("kernel_masked").functional

    def answer(mask: Tensor | None) -> Tensor:
        return layer(ones, weight, None, mask)

    shifted = PRISM.roll(1, -1)
    right, forgotten, misplaced = answer(PRISM), answer(None), answer(shifted)
    shows = not torch.equal(right, forgotten)
    return decide_on(
        shows, not torch.equal(right, misplaced),
        f"the mask gives {right.unique().tolist()}, no mask {forgotten.unique().tolist()}, the mask "
        f"shifted by one column {misplaced.unique().tolist()}",
    )  # fmt: skip


@claim(
    "001.5", FORUM, "Batch normalisation after the convolution undoes a bias.",
    Answer.TRUE_ON, domain="a bias added everywhere, statistics of the batch (training)",
)  # fmt: skip
def normalisation_undoes_a_bias() -> Judgement:
    """Normalise with and without a bias; with stored statistics; with a bias in some places."""
    x, weight, bias = whole(2, 1, 4, 4), whole(2, 1, 3, 3, seed=1), whole(2, seed=2) + 5
    layer = variant("kernel_masked").functional

    def normalised(y: Tensor, *, training: bool = True) -> Tensor:
        zero, one = torch.zeros(2).double(), torch.ones(2).double()
        return nn.functional.batch_norm(y, zero, one, training=training)

    def effect(where: str = "all", *, training: bool = True) -> float:
        kept = CROSS.double()
        got, expected = (
            normalised(layer(sparse, weight, b, kept, bias_where=where, padding=1),
                       training=training) for b in (bias, None)
        )  # fmt: skip
        return largest_difference(got, expected)

    sparse = x * coins(*x.shape, seed=3) * coins(*x.shape, seed=4)
    undone, stored, some = effect(), effect(training=False), effect("support")
    # the roundings of a mean, a difference and a variance over all values of a channel
    y = layer(sparse, weight, bias, CROSS.double(), padding=1)
    sums = 2 * y.numel() // len(bias)
    rounding = gamma(sums, UNIT_ROUNDOFF["float64"]) * float((y.abs().amax() / y.std()).square())
    return decide_on(
        undone <= rounding, min(stored, some) <= rounding,
        f"a bias of {bias.tolist()} moves the normalised output by {undone:.1g}; by {stored:.2g} "
        f"with stored statistics; by {some:.2g} when it is added only where the mask sees something",
    )  # fmt: skip


@claim(
    "001.6", FORUM,
    "The bias is added after the convolution, so that windows without a kept value give the bias.",
    Answer.TRUE,
)  # fmt: skip
def empty_windows_give_the_bias() -> Judgement:
    """Show the kernel values under its masked taps alone."""
    image = (1 - CROSS).view(1, 1, 3, 3).double()
    weight, bias = whole(2, 1, 3, 3), torch.tensor([3.0, -2.0]).double()
    y = variant("kernel_masked").functional(image, weight, bias, CROSS)
    return decide(
        torch.equal(y.flatten(), bias),
        f"values under masked taps only: output {y.flatten().tolist()}, bias {bias.tolist()}",
    )


@claim(
    "001.7", FORUM, "A bias can be restricted to windows where the mask meets something.",
    Answer.TRUE,
)  # fmt: skip
def bias_can_be_restricted() -> Judgement:
    """Judge the law of the bias with support."""
    law = experiment("K17", "kernel_masked")
    image = torch.stack([1 - CROSS, CROSS]).view(2, 1, 3, 3).double()
    bias = torch.tensor([3.0]).double()
    y = variant("kernel_masked").functional(
        image, torch.ones(1, 1, 3, 3).double(), bias, CROSS, bias_where="support"
    )
    return decide(
        held(law) and y.flatten().tolist() == [0.0, 8.0],
        f"bias_where='support': the corners alone give {y[0].item()}, the cross {y[1].item()} "
        f"(5 values and a bias of 3); law K17 holds in {law.cases} cases",
    )


@claim(
    "001.8", FORUM, "Restricting the bias takes control flow that depends on data.", Answer.FALSE
)
def restriction_needs_control_flow() -> Judgement:
    """Record the operators on one image and run the record on others."""
    weight, bias = whole(2, 1, 3, 3), torch.tensor([3.0, -2.0]).double()
    layer = variant("kernel_masked").functional

    def restricted(x: Tensor) -> Tensor:
        return layer(x, weight, bias, CROSS, bias_where="support", padding=1)

    record = make_fx(restricted)(torch.zeros(1, 1, 6, 6).double())
    images = [whole(1, 1, 6, 6, seed=s) * coins(1, 1, 6, 6, seed=s) for s in range(20)]
    same = sum(torch.equal(record(image), restricted(image)) for image in images)
    return decide(
        same != len(images),
        f"the {len(record.graph.nodes)} operators recorded on an empty image compute {same} of "
        f"{len(images)} other images right",
    )


@claim("001.9", FORUM, "The kernel's mask is the same at every position.", Answer.TRUE)
def mask_is_the_same_everywhere() -> Judgement:
    """Compare with a mask for every window that repeats it."""
    law = experiment("W1", "window_masked")
    return decide(
        held(law), f"law W1, equal to one mask repeated for all windows, holds in {law.cases} cases"
    )


@claim(
    "001.10", FORUM,
    "A cross along the depth of a 3x3x3 kernel keeps 15 of 27 locations, and with padding 1 the "
    "size of the image.",
    Answer.TRUE,
)  # fmt: skip
def the_example_has_its_shape() -> Judgement:
    """Build the example's layer and find which inputs an output in the middle depends on."""
    layer = variant("kernel_masked").KernelMaskedConv3d(1, 8, 3, padding=1, kernel_mask=PRISM)
    x = torch.randn(1, 1, 6, 6, 6, requires_grad=True)
    y = layer(x)
    y[0, :, 3, 3, 3].sum().backward()
    seen = int((x.grad != 0).sum())
    laws = experiment("K4", "kernel_masked"), experiment("K2", "kernel_masked")
    return decide(
        seen == 15 and y.shape == (1, 8, 6, 6, 6) and held(*laws),
        f"the output has shape {tuple(y.shape)}, one of its values depends on {seen} inputs; laws "
        f"K2 and K4 hold in {cases_of(*laws)} cases",
    )
