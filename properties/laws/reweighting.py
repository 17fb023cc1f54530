"""What is summed over a window, divided by how much of it is present."""

from dataclasses import replace

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.taps import per_channel
from harness.variant import Trait
from properties.masked_cases import (
    binary,
    counted,
    given,
    own_mask,
    signal,
    taps_inside,
    zero_padded,
)

COVERS = frozenset({Trait.REWEIGHTS_BY_COVERAGE})


def _constants(t: Trial) -> None:
    weight, bias = t.tensors["weight"], t.tensors["bias"]
    assert isinstance(weight, Tensor)
    box = {
        "x": torch.full_like(signal(t), 3.0),
        "weight": torch.ones_like(weight),
        "bias": None if bias is None else torch.zeros_like(bias),
    }
    covered = counted(t, own_mask(t)) > 0
    expected = torch.where(covered, 3.0 * t.case.n_acc, 0.0).expand(t.case.out_shape)
    t.agree(
        {"output": t(**box)["output"]}, {"output": expected}, {"output": t.bound(**box)["output"]}
    )


KEEPS_CONSTANTS = Law(
    id="P2",
    name="box_kernel_keeps_constants",
    statement="f(x = c, w = 1, b = 0) = c |K| C/G wherever anything is present, 0 elsewhere",
    domain="masks of 0 and 1",
    requires=COVERS,
    within=binary,
    check=_constants,
    zero_is_right=True,
)


SHARES = (0.75, 0.5, 0.25)


def _binary_as_number(case: ConvCase) -> ConvCase:
    return binary(case).with_options(mask_dtype=None)


def _same_where_enough(t: Trial) -> None:
    mask = own_mask(t)
    covered, whole = counted(t, mask), {name: v.double().cpu() for name, v in t().items()}
    for share in SHARES:
        enough = (covered == 0) | (covered * share >= 1)
        part = {name: v.double().cpu() for name, v in t(mask=mask * share).items()}
        same = (part["mask"] == whole["mask"]).double()
        t.agree({"same mask": same}, {"same mask": enough.double()}, what=f"{share} m")
        got, expected = (v["output"].where(enough, 0.0) for v in (part, whole))
        bound = t.bound(mask=mask * share)["output"] + t.bound()["output"]
        t.agree({"output": got}, {"output": expected}, {"output": bound}, f"{share} m")


PART_OF_A_MASK = Law(
    id="P10",
    name="part_of_a_mask_is_the_mask_iff_it_covers_enough",
    statement="0 < a <= 1: f(x, a m)[q] = f(x, m)[q] iff a * coverage(q) >= 1 or coverage(q) = 0",
    domain="masks of 0 and 1",
    requires=COVERS,
    within=_binary_as_number,
    check=_same_where_enough,
    share=0.5,
)


def _little_counts(t: Trial) -> None:
    mask = own_mask(t)
    for share in SHARES:
        whole, part = t(), t(mask=mask * share)
        factor = (counted(t, mask) * share).clamp(max=1)
        t.agree({"mask": part["mask"]}, {"mask": factor}, what=f"{share} m")
        bound, expected = t.bound(mask=mask * share), whole["output"].double().cpu() * factor
        t.agree(
            {"output": part["output"]},
            {"output": expected},
            {"output": bound["output"] + t.bound()["output"]},
            f"{share} m",
        )


LITTLE_COUNTS = Law(
    id="P10b",
    name="part_of_a_mask_counts_where_little_is_covered",
    statement="0 < a <= 1: f(x, a m) = f(x, m) * min(a * coverage, 1)",
    domain="masks of 0 and 1",
    requires=COVERS,
    within=_binary_as_number,
    check=_little_counts,
    share=0.5,
)


def _continued(case: ConvCase) -> ConvCase:
    zeros = case.option("padding_mode", "zeros") == "zeros"
    return given(case.with_options(padding_mode="replicate") if zeros else case)


def _full_is_plain(t: Trial) -> None:
    ones = torch.ones_like(own_mask(t))
    y = t.other("plain")(t.wide("x"), t.wide("weight"), t.wide("bias"), **t.keywords)
    bound = t.bound(mask=ones)["output"]
    t.agree({"output": t(mask=ones)["output"]}, {"output": y}, {"output": bound})


def _zero_padded_border(case: ConvCase) -> ConvCase:
    """Pad with zeros, and no window so far out that it sees nothing."""
    reach = tuple(f - 1 for f in case.receptive_field)
    moved = replace(case, padding=tuple(map(min, (max(p, 1) for p in case.padding), reach)))
    grown = replace(moved, in_size=tuple(map(max, case.in_size, case.receptive_field)))
    return zero_padded(given(grown))


def _border_is_reweighted(t: Trial) -> None:
    ones = torch.ones_like(own_mask(t))
    y = t.other("plain")(t.wide("x"), t.wide("weight"), None, **t.keywords)
    seen = torch.ones((), dtype=torch.float64)
    for axis, inside in enumerate(taps_inside(t.case), start=2):
        seen = seen * inside.double().sum(1).view(-1, *(1 for _ in y.shape[axis + 1 :]))
    y = y * (t.case.taps / seen)  # of two roundings, 4/3 * 3/2 would not be 2
    bias = t.wide("bias")
    y = y if bias is None else y + per_channel(bias, y)
    bound = t.bound(mask=ones)["output"]
    t.agree({"output": t(mask=ones)["output"]}, {"output": y}, {"output": bound})


BORDER_IS_REWEIGHTED = Law(
    id="P1b",
    name="border_outputs_are_reweighted",
    statement="f(x, w, b, m = 1) = conv(x, w) * prod_axis K/(taps inside) + b",
    domain="zero padding, every window touches the image: K = 3, p = 1 gives 3/2 at edges, 9/4 in "
    "corners",
    requires=COVERS,
    within=_zero_padded_border,
    check=_border_is_reweighted,
)


FULL_IS_PLAIN_IF_CONTINUED = Law(
    id="P15",
    name="ones_mask_is_plain_where_padding_is_present",
    statement="f(x, w, b, m = 1) = conv(x, w) + b",
    domain="padding modes other than zeros",
    requires=COVERS,
    within=_continued,
    check=_full_is_plain,
)
