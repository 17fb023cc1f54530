"""Gradients at the border: what dropping them means, beside what PyTorch offers."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.claim import Answer, Judgement, claim, decide
from harness.taps import pad
from properties.claims._tools import (
    DIFF_CONV,
    experiment,
    held,
    largest_difference,
    variant,
    whole,
)


def _diff(x: Tensor, weight: Tensor, **options: object) -> Tensor:
    return variant("diff").functional(x, weight, **options)


def _gradient(x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    x = x.clone().requires_grad_()
    compute(x).sum().backward()
    return x.grad


@claim(
    "004.8", DIFF_CONV,
    "With keep_img_grad_at_invalid=False outputs stay, and border outputs pass no gradient to the "
    "image.",
    Answer.TRUE,
)  # fmt: skip
def border_gradient_can_be_dropped() -> Judgement:
    """Judge the law, and compare with the gradient of the interior outputs alone."""
    law, x, weight = experiment("D8", "diff"), whole(1, 1, 6, 6), whole(1, 1, 3, 3)
    dropped = _gradient(x, lambda t: _diff(t, weight, keep_img_grad_at_invalid=False))
    interior = _gradient(x, lambda t: torch.conv2d(t, weight))
    kept = _gradient(x, lambda t: _diff(t, weight))
    return decide(
        held(law) and torch.equal(dropped, interior) and not torch.equal(dropped, kept),
        f"law D8 holds in {law.cases} cases; on 6x6 the gradient is that of the valid convolution, "
        f"{largest_difference(dropped, kept):.3g} from the whole one",
    )


def _replicated(x: Tensor, weight: Tensor, *, keep: bool) -> Tensor:
    """Return the replicate-padded convolution, with or without the gradient of the copies."""
    padded = pad(x, (1, 1), "replicate")
    if not keep:
        inside = pad(torch.ones_like(x), (1, 1)) > 0
        padded = torch.where(inside, padded, padded.detach())
    return torch.conv2d(padded, weight)


@claim(
    "004.9", DIFF_CONV, "PyTorch has no option to drop the gradient of replicated pixels.",
    Answer.TRUE,
)  # fmt: skip
def torch_has_no_such_option() -> Judgement:
    """Read the signatures of the layer and of padding; then do it with detach."""
    options = [
        *inspect.signature(nn.Conv2d).parameters,
        *inspect.signature(nn.functional.pad).parameters,
    ]
    named = [name for name in options if "grad" in name]
    x, weight = whole(1, 1, 5, 5), whole(1, 1, 3, 3)
    both = [
        _gradient(x, lambda t, k=keep: _replicated(t, weight, keep=k)) for keep in (True, False)
    ]
    return decide(
        not named and not torch.equal(*both),
        f"no argument about gradients among {', '.join(dict.fromkeys(options))}; detaching the "
        f"copies by hand changes the gradient by up to {largest_difference(*both):.3g}",
    )


@claim(
    "004.10", DIFF_CONV,
    "Dropping that gradient does for it what detaching the copies does for replicate padding.",
    Answer.FALSE,
)  # fmt: skip
def dropping_is_detaching() -> Judgement:
    """Compare both at degree 0, where continuing an image is replicating it."""
    x, weight = whole(1, 1, 5, 5), whole(1, 1, 3, 3)
    ours = _gradient(x, lambda t: _diff(t, weight, degree=0, keep_img_grad_at_invalid=False))
    detached = _gradient(x, lambda t: _replicated(t, weight, keep=False))
    forward = torch.equal(_diff(x, weight, degree=0), _replicated(x, weight, keep=True))
    return decide(
        torch.equal(ours, detached),
        f"5x5, degree 0: outputs {'equal' if forward else 'differ'}, gradients differ at "
        f"{int((ours != detached).sum())} of 25 pixels: border outputs read real pixels too, and "
        "their gradient is dropped as well",
    )
