"""What tiling costs beside one convolution per source, and whether the two learn alike."""

import torch

from harness.claim import Answer, Judgement, claim, decide, decide_on
from harness.meter import Count
from properties.claims._tools import (
    MULTI_SOURCE,
    counted,
    experiment,
    held,
    largest_difference,
    variant,
    whole,
)
from properties.claims.sources import HEIGHT, TAPS, WIDTH, layers, whole_sources


def _cost(name: str) -> Count:
    """Return what a training step of a layer costs, computed as published."""
    layer = layers(implementation=name)[name == "concatenated"]
    sources = [source.requires_grad_() for source in whole_sources()]

    def step() -> None:
        for tensor in (*sources, *layer.parameters()):
            tensor.grad = None
        layer(*sources).sum().backward()

    return counted(step, *sources, *layer.parameters())


@claim(
    "003.9", MULTI_SOURCE, "Multi-source convolution takes less memory than tiling.", Answer.TRUE
)
def memory_is_saved() -> Judgement:
    """Follow the bytes that a forward and a backward pass hold."""
    several, single = (_cost(name).peak_bytes for name in ("one_per_source", "concatenated"))
    return decide(
        several < single, f"peak of a training step: {several} bytes per source, {single} tiled"
    )


@claim(
    "003.10", MULTI_SOURCE, "It multiplies less, since vectors and scalars pass no full kernels.",
    Answer.TRUE,
)  # fmt: skip
def multiplications_are_saved() -> Judgement:
    """Count the floating-point operations of both."""
    several, single = (_cost(name).flops for name in ("one_per_source", "concatenated"))
    return decide(
        several < single, f"a training step: {several} operations per source, {single} tiled"
    )


@claim(
    "003.11", MULTI_SOURCE,
    "In training, the two layers with the same hyperparameters do not differ significantly.",
    Answer.TRUE_ON,
    domain="plain gradient descent, the rate of each source times the taps that its weight sums",
)  # fmt: skip
def training_is_alike() -> Judgement:
    """Compare the outputs after one step from equal functions, at the same and at tied rates."""
    law = experiment("S7", "tile_concat")
    single, sources = layers()[1], whole_sources()
    several = variant("multi_source").MultiSourceConv2d.from_tile_concat(single)
    rate, tied = 2.0**-12, (1, TAPS, TAPS, TAPS**2)
    for layer in (single, several):
        layer(*sources).square().sum().backward()
    weights = (*several.weights, several.bias)
    start, moved = [weight.detach().clone() for weight in weights], []
    with torch.no_grad():
        for weight in single.parameters():
            weight -= rate * weight.grad
        for scales in ((1, 1, 1, 1), tied):
            for weight, before, scale in zip(weights, start, (*scales, 1), strict=True):
                weight.copy_(before - rate * scale * weight.grad)
            moved.append(largest_difference(several(*sources), single(*sources)))
    size = float(single(*sources).detach().abs().max())
    return decide_on(
        held(law) and moved[1] == 0, moved[0] == 0,
        f"after one step from equal functions the outputs are {moved[0]:.3g} apart (of "
        f"{size:.3g}), with rates times {tied} for image, row, column "
        f"and scalar {moved[1]:.3g}; law S7 holds in {law.cases} cases",
    )  # fmt: skip


@claim(
    "003.12", MULTI_SOURCE,
    "Flattening vectors into scalars loses what they say about their rows.", Answer.TRUE,
)  # fmt: skip
def flattening_loses_rows() -> Judgement:
    """Find the least error with which either form gives every row the value of its vector."""
    row = whole(64, 1, HEIGHT)
    target = row.expand(-1, -1, HEIGHT)
    kept = variant("multi_source").functional(
        (None, row, None, None), (None, torch.ones(1, 1, 1).double(), None, None),
        size=(HEIGHT, WIDTH), kernel_size=(1, 1),
    )  # fmt: skip
    exact = largest_difference(kept, row[..., None].expand_as(kept))
    # a scalar answers all rows alike: the best it can do is their mean
    best = (target - target.mean(2, keepdim=True)).square().mean()
    return decide(
        exact == 0 and bool(best > 0),
        f"mean squared error with a row kernel {exact}, with any weights of the flattened vector at "
        f"least {float(best):.3g}, the variance along the rows",
    )


@claim(
    "003.13", MULTI_SOURCE,
    "A quadratic form does not change when its matrix is replaced by its symmetric part.",
    Answer.TRUE,
)  # fmt: skip
def quadratic_forms_are_symmetric() -> Judgement:
    """Compare on whole numbers."""
    a, x = whole(6, 6), whole(100, 6, seed=1)
    forms = [torch.einsum("ni,ij,nj->n", x, m, x) for m in (a, (a + a.T) / 2)]
    return decide(
        torch.equal(*forms) and not torch.equal(a, a.T),
        f"100 vectors: largest difference {largest_difference(*forms)}",
    )
