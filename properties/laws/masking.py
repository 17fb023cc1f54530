"""What a mask over the signal hides, and what it adds up to."""

from dataclasses import replace
from math import inf, nan

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.taps import apply_mask, pad
from harness.tolerance import Bound
from harness.variant import Trait
from properties.masked_cases import (
    absent,
    binary,
    drawn_mask,
    given,
    holey,
    must_take,
    own_mask,
    several_samples,
    shared_by_channels,
    signal,
    twice,
    zero_padded,
)

HIDES = frozenset({Trait.HOLES_INVISIBLE})
ADDITIVE = frozenset({Trait.ADDITIVE_IN_MASK})
SIGNAL = frozenset({Trait.MASKS_SIGNAL})
SCALED = frozenset({Trait.SCALES_BY_MASK})


def _applied_first(case: ConvCase) -> ConvCase:
    return holey(case).with_options(apply_mask="True")


# -- holes ---------------------------------------------------------------------------------------


def _invisible(t: Trial) -> None:
    # the same layout on both sides, so that the same library kernel runs
    plain = signal(t).masked_fill(absent(t), 3.0)
    outputs, gradients = t(x=plain), t.gradients(x=plain)
    for word in (nan, inf, -inf, 0.0):
        hidden = plain.masked_fill(absent(t), word)
        t.agree(t(x=hidden), outputs, what=f"{word} in the holes")
        t.agree(t.gradients(x=hidden), gradients, what=f"gradient with {word} in the holes")


HOLES_ARE_INVISIBLE = Law(
    id="I5",
    aliases=("P7",),
    name="holes_are_invisible",
    statement="f(x, m) and df are the same bits whatever x holds where m = 0, NaN and Inf too",
    requires=HIDES,
    within=holey,
    check=_invisible,
)

HOLES_ARE_INVISIBLE_IF_APPLIED = Law(
    id="M8",
    name="holes_are_invisible_if_the_mask_is_applied",
    statement="f(x, m) is the same, bit for bit, whatever x holds where m = 0",
    domain="apply_mask; without it holes act on their neighbours",
    requires=SCALED,
    within=_applied_first,
    check=_invisible,
)


def _no_gradient_at_holes(t: Trial) -> None:
    gradient = t.gradients()["x"]
    t.agree(
        {"x": gradient.where(absent(t), 0.0)}, {"x": torch.zeros_like(gradient)}, what="gradient"
    )


NO_GRADIENT_AT_HOLES = Law(
    id="I8",
    aliases=("P12",),
    name="passes_no_gradient_to_holes",
    statement="df/dx = 0 where m = 0",
    requires=HIDES,
    within=holey,
    check=_no_gradient_at_holes,
    zero_is_right=True,
)


def _nothing_present(t: Trial) -> None:
    gradient = t.gradients(mask=torch.zeros_like(own_mask(t)))["weight"]
    t.agree({"weight": gradient}, {"weight": torch.zeros_like(gradient)}, what="gradient")


NOTHING_PRESENT_TEACHES_NOTHING = Law(
    id="I9",
    name="nothing_present_teaches_nothing",
    statement="df/dw = 0 for m = 0",
    requires=HIDES,
    within=given,
    check=_nothing_present,
    zero_is_right=True,
)


def _with_fractions(case: ConvCase) -> ConvCase:
    return case.with_options(mask="real", mask_dtype=None)


def _premasked(t: Trial) -> None:
    t.agree(t(x=apply_mask(signal(t), own_mask(t))), t(), twice(t.bound()))


MASKING_TWICE_IS_MASKING_ONCE = Law(
    id="I3",
    aliases=("P18",),
    name="masking_twice_is_masking_once",
    statement="f(x*m, m) = f(x, m)",
    domain="masks of 0 and 1",
    requires=HIDES,
    within=binary,
    outside=_with_fractions,
    check=_premasked,
)


# -- sums ----------------------------------------------------------------------------------------


def _nothing_is_bias(t: Trial) -> None:
    got = t(mask=torch.zeros_like(own_mask(t)))
    bias = t.tensors["bias"]
    zeros = torch.zeros(t.case.out_shape, dtype=torch.float64)
    expected = (
        zeros if bias is None else zeros + t.wide("bias").view(-1, *(1 for _ in t.case.in_size))
    )
    t.agree(got, {"output": expected})


NO_MASK_IS_BIAS = Law(
    id="I2",
    name="mask_of_zeros_leaves_the_bias",
    statement="f(x, m = 0) = b",
    requires=ADDITIVE,
    check=_nothing_is_bias,
    zero_is_right=True,
)


def _adds_up(t: Trial, first: Tensor, second: Tensor, whole: Tensor) -> None:
    total = t(mask=first)["output"].double() + t(mask=second)["output"].double()
    expected = t.truth(mask=whole)["output"]
    if t.tensors["bias"] is not None:
        expected = expected + t.wide("bias").view(-1, *(1 for _ in t.case.in_size))
    bound = t.bound(mask=first)["output"] + t.bound(mask=second)["output"]
    t.agree({"output": total.cpu()}, {"output": expected}, {"output": bound})


def _complements(t: Trial) -> None:
    mask = own_mask(t)
    rest = ~mask if mask.dtype == torch.bool else 1 - mask
    _adds_up(t, mask, rest, torch.ones_like(mask))


COMPLEMENTS_ADD_UP = Law(
    id="I4",
    name="a_mask_and_its_complement_add_up",
    statement="f(x, m) + f(x, 1 - m) = f(x, 1) + b",
    requires=ADDITIVE,
    check=_complements,
)


def _parts(t: Trial) -> None:
    whole, chosen = own_mask(t), drawn_mask(t, "bernoulli:0.5").bool()
    _adds_up(t, whole.masked_fill(~chosen, 0), whole.masked_fill(chosen, 0), whole)


PARTS_ADD_UP = Law(
    id="I6",
    name="disjoint_masks_add_up",
    statement="f(x, m1) + f(x, m2) = f(x, m1 + m2) + b for m1 m2 = 0",
    requires=ADDITIVE,
    check=_parts,
)


# -- shapes of masks -----------------------------------------------------------------------------


def _copied(t: Trial, axis: int, count: int) -> None:
    must_take(t, **{("mask_batch", "mask_channels")[axis]: None})
    mask = own_mask(t)
    sizes = [count if a == axis else size for a, size in enumerate(mask.shape)]
    got = t(mask=mask.expand(sizes).clone())
    expected = {name: value.expand_as(got[name]) for name, value in t().items()}
    bound = {
        name: Bound(error=2 * b.error.expand_as(got[name]), tier=b.tier)
        for name, b in t.bound().items()
    }
    t.agree(got, expected, bound)


def _one_for_the_batch(case: ConvCase) -> ConvCase:
    return several_samples(holey(case)).with_options(mask_batch="one")


SHARED_BY_BATCH = Law(
    id="P11",
    name="batch_mask_is_its_copies",
    statement="f(x, m of one sample) = f(x, m repeated for every sample)",
    domain="two samples or more",
    requires=frozenset({Trait.BROADCASTS_MASK}),
    within=_one_for_the_batch,
    check=lambda t: _copied(t, 0, t.case.n),
)

SHARED_BY_CHANNELS = Law(
    id="I7",
    name="channel_mask_is_its_copies",
    statement="f(x, m of one channel) = f(x, m repeated for every channel)",
    requires=ADDITIVE,
    within=lambda case: shared_by_channels(holey(case)),
    check=lambda t: _copied(t, 1, t.case.c_in),
)


# -- boxes ---------------------------------------------------------------------------------------


def _cropped(t: Trial) -> None:
    x, case = t.wide("x"), t.case
    held = own_mask(t).cpu().bool()
    sides = []
    for axis, (p, size) in enumerate(zip(case.padding, case.in_size, strict=True), start=2):
        found = held.movedim(axis, 0).flatten(1).any(1).nonzero().flatten().tolist() or [0, -1]
        low, high = found[0], found[-1] + 1
        x = x.narrow(axis, low, high - low)
        sides.append((p + low, p + size - high))
    unpadded = {"padding": (0,) * case.spatial_dims}
    keywords = {name: t.keywords[name] for name in ("stride", "dilation", "groups")} | unpadded
    y = t.other("plain")(pad(x, sides), t.wide("weight"), t.wide("bias"), **keywords)
    t.agree(t(), {"output": y}, t.bound())


A_BOX_IS_A_CROP = Law(
    id="I10",
    name="a_box_is_a_crop",
    statement="f(x, m = box [lo, hi)) = plain(x[lo:hi], padding (p + lo, p + S - hi))",
    domain="zero padding",
    requires=SIGNAL,
    within=lambda case: zero_padded(case).with_options(mask="box"),
    check=_cropped,
)


def _every_density(t: Trial) -> None:
    masks = {word: drawn_mask(t, word) for word in ("zeros", "bernoulli:0.1", "box", "ones")}
    single = torch.zeros_like(own_mask(t))
    single.view(-1)[t.case.seed % max(1, single.numel())] = 1
    for word, mask in (masks | {"one entry": single}).items():
        t.agree(t(mask=mask), t.truth(mask=mask), t.bound(mask=mask), word)


EVERY_DENSITY = Law(
    id="I11",
    name="skipping_is_exact_at_every_density",
    statement="f(x, m) = conv(x*m, w) + b with nothing, one entry, few, a box, all present",
    requires=SIGNAL,
    share=0.5,
    check=_every_density,
    about_oracle=False,
)


# -- images of different sizes in one batch ------------------------------------------------------


def _padded_batch(case: ConvCase) -> ConvCase:
    case = several_samples(zero_padded(given(case)))
    return case.with_options(mask_batch=None)


def _centred(case: ConvCase) -> ConvCase:
    case = _padded_batch(case).with_options(apply_mask="True")
    half = ((field - 1) // 2 for field in case.receptive_field)
    padding = tuple(map(min, case.padding, half))
    fits = (f - 2 * p for f, p in zip(case.receptive_field, padding, strict=True))
    return replace(case, padding=padding, in_size=tuple(map(max, case.in_size, fits)))


def _as_alone(t: Trial) -> None:
    case = t.case
    generator = torch.Generator().manual_seed(case.seed)
    axes = list(zip(case.in_size, case.receptive_field, case.padding, strict=True))
    mask = torch.zeros_like(own_mask(t))
    boxes = []
    for i in range(case.n):
        sides = [
            int(torch.randint(max(1, field - 2 * p), size + 1, (), generator=generator))
            for size, field, p in axes
        ]
        boxes.append((i, slice(None), *(slice(side) for side in sides)))
        mask[boxes[-1]] = 1
    outside = (mask == 0).expand_as(signal(t))
    # whatever the padding of the batch holds
    whole = t(x=signal(t).masked_fill(outside, 7.0), mask=mask)
    bound = t.bound(mask=mask)
    for i, _, *box in boxes:
        sample = (slice(i, i + 1), slice(None), *box)
        alone = t.truth(x=signal(t)[sample], mask=torch.ones_like(mask[sample]))
        for name, expected in alone.items():
            own = (slice(i, i + 1), slice(None), *(slice(size) for size in expected.shape[2:]))
            allowed = Bound(error=bound[name].error[own], tier=bound[name].tier)
            t.agree({name: whole[name][own]}, {name: expected}, {name: allowed}, f"sample {i}")


SERVES_DIVERSE_SIZES = Law(
    id="P19",
    name="padded_batch_gives_what_each_gives_alone",
    statement="f(padded batch, m = box of each)[i] = f(x_i) on the outputs that x_i alone has",
    domain="zero padding",
    requires=frozenset({Trait.SERVES_DIVERSE_SIZES}),
    within=_padded_batch,
    check=_as_alone,
)

MASKED_SERVES_DIVERSE_SIZES = Law(
    id="M9",
    name="padded_batch_gives_what_each_gives_alone_if_the_mask_is_applied",
    statement="f(padded batch, m = box of each)[i] = f(x_i) on the outputs that x_i alone has",
    domain="zero padding p <= d(K-1)/2, apply_mask",
    requires=SCALED,
    within=_centred,
    check=_as_alone,
)
