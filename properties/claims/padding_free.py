"""Convolution without padding: what it is, what it takes, what its options do."""

import ast
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.case import CaseError
from harness.claim import Answer, Judgement, claim, decide, decide_on
from properties.claims._tools import (
    DIFF_CONV,
    cases_of,
    counted,
    experiment,
    held,
    largest_difference,
    variant,
    whole,
)

SHAPE, FILTERS = (2, 4, 9, 8), 6


def _diff(x: Tensor, weight: Tensor, **options: object) -> Tensor:
    return variant("diff").functional(x, weight, **options)


@claim("004.1", DIFF_CONV, "The convolution is free of padding.", Answer.FALSE)
def is_free_of_padding() -> Judgement:
    """Judge whether it is the plain convolution of an image that somebody has extended."""
    law = experiment("D1", "diff")
    x, weight = torch.tensor([[[1.0, 4.0, 9.0, 16.0]]]), torch.tensor([[[1.0, 10.0, 100.0]]])
    extended = torch.tensor([[[0.0, 1.0, 4.0, 9.0, 16.0, 25.0]]])
    y, same = _diff(x, weight), torch.conv1d(extended, weight)
    return decide(
        not (held(law) and torch.equal(y, same)),
        f"of 1 4 9 16 it gives {y.flatten().tolist()}, as the plain convolution of 0 1 4 9 16 25; "
        f"law D1, plain on the image continued by polynomials, holds in {law.cases} cases",
    )


@claim(
    "004.2", DIFF_CONV,
    "Kernels keep their differential characteristics at the boundary: polynomials are filtered there "
    "as inside.",
    Answer.TRUE_ON, domain="polynomials of a degree below the kernel's side",
)  # fmt: skip
def characteristics_are_kept() -> Judgement:
    """Filter powers of the position, of every degree up to the kernel's side, in whole numbers."""
    errors = {}
    for side in (3, 5, 7):
        half, weight = side // 2, whole(1, 1, side, seed=side)
        place = torch.arange(-half, side + 3 + half, dtype=torch.float64)
        for degree in (*range(side), side):
            field = place.pow(degree).view(1, 1, -1)
            y = _diff(field[..., half:-half], weight)
            errors[side, degree] = largest_difference(y, torch.conv1d(field, weight))
    inside = max(error for (side, degree), error in errors.items() if degree < side)
    beyond = [errors[side, side] for side in (3, 5, 7)]
    return decide_on(
        inside == 0, min(beyond) == 0,
        f"largest error for degrees below 3, 5, 7: {inside}; at these degrees {beyond}",
    )  # fmt: skip


@claim("004.3", DIFF_CONV, "PyTorch is the only dependency.", Answer.TRUE)
def torch_is_the_only_dependency() -> Judgement:
    """Follow every import of the package, wherever in a file it stands.

    Kernels for Triton are an extra that whoever has none does without.
    """
    waiting, seen, foreign = ["impls.diff"], set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen or "triton" in name:
            continue
        seen.add(name)
        root = name.partition(".")[0]
        if root not in {"impls", "harness"}:
            foreign |= {root} - set(sys.stdlib_module_names)
            continue
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            continue
        for node in ast.walk(ast.parse(Path(found.origin).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting.append(node.module)
    ours = sum(name.startswith(("impls.", "harness.")) for name in seen)
    return decide(
        foreign == {"torch"}, f"imports of {ours} modules of ours, beyond Python's own: "
        f"{', '.join(sorted(foreign))}"
    )  # fmt: skip


@claim("004.4", DIFF_CONV, "The kernel's side can be 3, 5 or 7 only.", Answer.FALSE)
def sides_are_3_5_or_7() -> Judgement:
    """Filter a constant and a straight line with other odd sides."""
    line = torch.arange(12.0, dtype=torch.float64).view(1, 1, -1)
    right = []
    for side in (1, 9, 11):
        half, weight = side // 2, whole(1, 1, side, seed=side)
        beyond = torch.arange(-half, 12.0 + half, dtype=torch.float64).view(1, 1, -1)
        if torch.equal(_diff(line, weight), torch.conv1d(beyond, weight)):
            right.append(side)
    return decide(not right, f"sides {right} filter a straight line without an error")


@claim("004.5", DIFF_CONV, "The method goes together with stride and dilation.", Answer.TRUE)
def stride_and_dilation_fit() -> Judgement:
    """Judge the laws of both."""
    laws = experiment("G13", "diff"), experiment("D12", "diff")
    return decide(
        held(*laws),
        f"laws G13 (a stride subsamples) and D12 (dilation acts on every phase apart) hold in "
        f"{cases_of(*laws)} cases",
    )


@claim(
    "004.6", DIFF_CONV, "It can be put in the place of a convolution with padding='same'.",
    Answer.TRUE_ON, domain="odd kernels, images at least as wide as the kernel",
)  # fmt: skip
def replaces_same_padding() -> Judgement:
    """Compare shapes and interiors; then try an even kernel and a small image."""
    law, x = experiment("D2", "diff"), whole(*SHAPE)
    shapes = []
    for side in (3, 5, 7):
        weight = whole(FILTERS, 2, side, side)
        same = nn.functional.conv2d(x, weight, padding="same", groups=2)
        shapes.append(_diff(x, weight, groups=2).shape == same.shape)
    accepted, refused = [], []
    for label, image, weight in (
        ("a 2x2 kernel", x, whole(FILTERS, 4, 2, 2)),
        ("a 4x4 image under a 5x5 kernel", x[..., :4, :4], whole(FILTERS, 4, 5, 5)),
    ):
        try:
            _diff(image, weight)
            accepted.append(label)
        except CaseError:
            refused.append(label)
    return decide_on(
        all(shapes) and held(law), not refused,
        f"3x3, 5x5 and 7x7 give the shape of padding='same', law D2 (interior is plain) holds in "
        f"{law.cases} cases; refused: {', '.join(refused)}",
    )  # fmt: skip


@claim(
    "004.7", DIFF_CONV, "Its layer can be put in the place of a trained Conv2d.",
    Answer.TRUE_ON, domain="layers without an edge kernel of their own",
)  # fmt: skip
def layer_replaces_conv2d() -> Judgement:
    """Load a trained layer's state strictly."""
    layer, trained = variant("diff").DiffConv2d, nn.Conv2d(4, FILTERS, 3, groups=2)
    layer(4, FILTERS, 3, groups=2).load_state_dict(trained.state_dict(), strict=True)
    try:
        layer(4, FILTERS, 3, groups=2, train_edge_kernel=True).load_state_dict(trained.state_dict())
        missing = ""
    except RuntimeError as error:
        missing = str(error).partition("Missing key(s) in state_dict: ")[2].split(". ")[0]
    return decide_on(True, not missing, f"the state loads strictly; with an edge kernel it lacks "
                     f"{missing}")  # fmt: skip


@claim(
    "004.11", DIFF_CONV, "Without an edge kernel the weight serves interior and border alike.",
    Answer.TRUE,
)  # fmt: skip
def weight_serves_the_border() -> Judgement:
    """Judge that the weight as its own edge kernel changes nothing, and that another one does."""
    laws = experiment("D7", "diff"), experiment("D15", "diff")
    return decide(held(*laws), f"laws D7 and D15 hold in {cases_of(*laws)} cases")


@claim("004.12", DIFF_CONV, "Training an edge kernel doubles the weights.", Answer.TRUE)
def edge_kernel_doubles_the_weights() -> Judgement:
    """Count the parameters of both layers."""
    layer = variant("diff").DiffConv2d
    counts = [
        sum(p.numel() for p in layer(4, FILTERS, 3, bias=bias, train_edge_kernel=edge).parameters())
        for bias in (False, True)
        for edge in (False, True)
    ]
    return decide(
        counts[1] == 2 * counts[0] and counts[3] == 2 * counts[2],
        f"4 > {FILTERS} channels, 3x3: {counts[0]} and {counts[1]} weights, with a bias {counts[2]} "
        f"and {counts[3]}",
    )


@claim("004.13", DIFF_CONV, "Groups may be any.", Answer.TRUE)
def groups_may_be_any() -> Judgement:
    """Judge that groups are convolutions apart."""
    law = experiment("D13", "diff")
    return decide(held(law), f"law D13 holds in {law.cases} cases")


@claim(
    "004.14", DIFF_CONV, "Optimising for speed or for memory gives the same values.", Answer.TRUE
)
def targets_agree() -> Judgement:
    """Judge the law of targets, and that they are two ways to compute."""
    law, x, weight = experiment("D5", "diff"), whole(*SHAPE), whole(FILTERS, 4, 3, 3)
    names = [f"transformed_kernels_{target}" for target in ("memory", "speed")]
    runs = [counted(lambda n=name: _diff(x, weight, implementation=n)).kernels for name in names]
    same = torch.equal(*(_diff(x, weight, implementation=name) for name in names))
    return decide(
        held(law) and same and runs[0] != runs[1],
        f"law D5 holds in {law.cases} cases; {runs[0]} operators for memory and {runs[1]} "
        f"for speed give {'equal' if same else 'other'} values",
    )


@claim(
    "004.15", DIFF_CONV,
    "Optimised for memory it needs as much as a padded convolution, within a tenth.",
    Answer.TRUE_ON, domain="forward passes; a training step holds half as much again",
)  # fmt: skip
def memory_is_close_to_padding() -> Judgement:
    """Follow the bytes that a forward pass holds, and a training step."""
    x = whole(4, 16, 64, 64).float().requires_grad_()
    weight = whole(16, 16, 3, 3).float().requires_grad_()

    def padded() -> Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, (1,) * 4, "replicate"), weight)

    def ours() -> Tensor:
        return _diff(x, weight, implementation="transformed_kernels_memory")

    def forward(compute: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            compute()

    def training(compute: Callable[[], Tensor]) -> None:
        x.grad = weight.grad = None
        compute().sum().backward()

    def ratio(run: Callable[[Callable[[], Tensor]], None]) -> float:
        peaks = [counted(lambda c=way: run(c), x, weight).peak_bytes for way in (ours, padded)]
        return peaks[0] / peaks[1]

    alone, step = ratio(forward), ratio(training)
    return decide_on(
        alone <= 1.1, step <= 1.1,
        f"peak over that of replicate padding, 4x16x64x64, 3x3, on the CPU: {alone:.2f} forward, "
        f"{step:.2f} in a training step",
    )  # fmt: skip
