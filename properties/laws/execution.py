"""How a call is run changes nothing: again, in threads, in another dtype, under autocast."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.call import call
from harness.case import DTYPES, PADDING_MODES, ConvCase
from harness.check import Outputs, Trial, as_outputs
from harness.law import Law
from harness.selection import declines
from harness.tensors import each, lay_out, torch_dtype
from harness.variant import Ability, Role, Trait, Value
from properties.graphs import beside, larger
from properties.masked_cases import binary, own_mask, signal, twice

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def public(t: Trial, **replaced: Value) -> Outputs:
    """Return the outputs of the trial's implementation by way of the public functional form."""
    tensors = tuple({**t.tensors, **replaced}.values())
    # told, because a weight may hold more axes than its kernel has
    told = {"kernel_size": t.case.kernel_size, "implementation": t.implementation.name}
    return as_outputs(call(t.variant, tensors, **{**t.keywords, **told}))


# -- memory format -------------------------------------------------------------------------------


def _mode(case: ConvCase) -> str:
    return case.option("padding_mode", case.option("method", "zeros"))


def _library(t: Trial, x: Tensor) -> Tensor:
    """Return what `torch.nn.ConvNd` makes of an image of the case, laid out like `x`."""
    case = t.case
    image = torch.zeros(case.n, case.c_in, *case.in_size, dtype=x.dtype, device=x.device)
    image = lay_out(image, "channels_last")
    padding: tuple[int, ...] = case.padding
    mode = _mode(case)
    if mode != "zeros":
        sides = [side for p in reversed(padding) for side in (p, p)]
        image, padding = F.pad(image, sides, mode=mode), (0,) * len(padding)
    weight = image.new_zeros(case.weight_shape)
    convolve: Callable[..., Tensor] = (F.conv2d, F.conv3d)[len(padding) - 2]
    return convolve(
        image, weight, stride=case.stride, padding=padding, dilation=case.dilation,
        groups=case.groups,
    )  # fmt: skip


def _planes(case: ConvCase) -> ConvCase | None:
    """Take channels and pixels enough for one layout to be another than the contiguous one."""
    if case.spatial_dims == 1 or case.sources or _mode(case) not in PADDING_MODES:
        return None
    wider = tuple(size + 2 * s for size, s in zip(case.in_size, case.stride, strict=True))
    return replace(case, c_out=case.c_out * 2, in_size=wider, layout="channels_last")


def _keeps_format(t: Trial) -> None:
    if any(arg.covers == "x" and t.tensors[arg.name] is not None for arg in t.variant.args):
        return
    y, usual = t()["output"], _library(t, signal(t))
    form = FORMATS[usual.dim()]
    if usual.is_contiguous(memory_format=form) and not usual.is_contiguous():
        held = y.is_contiguous(memory_format=form)
        t.require(held, f"output.stride()={y.stride()} where nn.ConvNd gives {usual.stride()}")


KEEPS_MEMORY_FORMAT = Law(
    id="G24",
    name="keeps_the_memory_format",
    statement="an image in channels_last gives an output in channels_last where nn.ConvNd does",
    domain="one signal with 2 or 3 spatial axes; the padding modes of nn.ConvNd; no mask over the signal: selecting by one copies",
    within=_planes,
    check=_keeps_format,
    about_oracle=False,
    ability=Ability.CHANNELS_LAST,
    share=0.5,
    rounds=True,
)


# -- again, and in threads -----------------------------------------------------------------------


def _repeats(t: Trial) -> None:
    first = t()
    # an implementation that declares that it is not deterministic still owes the bound
    bound = None if t.implementation.deterministic else twice(t.bound())
    t.agree(t(), first, bound, "the same call again")


REPEATS = Law(
    id="G27",
    name="gives_the_same_again",
    statement="f(x) = f(x), bit for bit",
    domain="where the implementation is declared deterministic; else within the error bound",
    check=_repeats,
    zero_is_right=True,
    rounds=True,
)


def _two_workers(t: Trial) -> None:
    kept = torch.get_num_threads()
    alone = t()
    torch.set_num_threads(2 if kept == 1 else 1)
    try:
        other = t()
    finally:
        torch.set_num_threads(kept)
    t.agree(other, alone, twice(t.bound()), "with another number of threads")


ANY_NUMBER_OF_THREADS = Law(
    id="G27b",
    name="takes_any_number_of_threads",
    statement="f(x) computed by one thread is f(x) computed by two, within the error bound",
    check=_two_workers,
    share=0.2,
    rounds=True,
)

ROUNDS = 3


def _at_once(t: Trial) -> None:
    trials = (t, larger(t))
    alone = [trial() for trial in trials]
    start = Barrier(len(trials), timeout=60)

    def work(trial: Trial) -> list[Outputs]:
        found = []
        for _ in range(ROUNDS):
            start.wait()
            found.append(trial())
        return found

    kept = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        # A new thread may have another number of workers, by which the library rounds otherwise.
        workers = {"initializer": torch.set_num_threads, "initargs": (torch.get_num_threads(),)}
        with ThreadPoolExecutor(len(trials), **workers) as pool:
            found = list(pool.map(work, trials))
    finally:
        sys.setswitchinterval(kept)
    for trial, expected, results in zip(trials, alone, found, strict=True):
        bound = None if t.implementation.deterministic else twice(trial.bound())
        for got in results:
            t.agree(got, expected, bound, "beside a call of another shape")


THREADS_DO_NOT_MEET = Law(
    id="G28b",
    name="calls_in_threads_do_not_meet",
    statement="f(a) and f(b) called at once in two threads are f(a) and f(b), bit for bit",
    domain="b has one sample more than a, and other masks; as many workers for every call",
    check=_at_once,
    ability=Ability.THREADS,
    share=0.2,
    zero_is_right=True,
    rounds=True,
)


# -- dtypes --------------------------------------------------------------------------------------


def _switches_dtype(t: Trial) -> None:
    trials = [
        beside(t, case)
        for case in (replace(t.case, dtype=dtype) for dtype in DTYPES)
        if declines(t.implementation, t.variant, case) is None
    ]
    first = t()
    for trial in trials:
        for name, value in trial().items():
            given = torch_dtype(trial.case.dtype)
            t.require(value.dtype == given, f"{name}.dtype={value.dtype} for tensors of {given}")
        t.agree(trial(), trial.truth(), trial.bound(), trial.case.dtype)
    t.agree(t(), first, what="after calls in other dtypes")


SWITCHES_DTYPE = Law(
    id="G30b",
    name="serves_one_dtype_after_another",
    statement="f in every dtype in turn: each result in its own dtype, right to its own precision",
    domain="whole numbers, which every dtype holds",
    within=lambda case: case if case.is_exact else replace(case, fill="exact"),
    check=_switches_dtype,
    about_oracle=False,
    share=0.2,
)

LOWERED = "bfloat16"


def _lowers(t: Trial) -> None:
    masks = {arg.name for arg in t.variant.args if arg.role is Role.MASK}
    with torch.autocast(t.device, dtype=torch_dtype(LOWERED)):
        probe = torch.ones(1, 1, 1, dtype=torch_dtype(t.case.dtype), device=t.device)
        usual = F.conv1d(probe, probe).dtype
        lowered = beside(t, replace(t.case, dtype=str(usual).removeprefix("torch.")))
        got = t() if t.implementation.origin else public(t)
    rounded: dict[str, Value] = {
        name: value if name in masks else each(value, lambda v: v.to(usual))
        for name, value in t.tensors.items()
    }
    t.require(got["output"].dtype == usual, f"output.dtype={got['output'].dtype}, not {usual}")
    t.agree(got, lowered.truth(**rounded), lowered.bound(**rounded))


LOWERS_LIKE_CONVOLUTION = Law(
    id="G31",
    name="autocasts_like_nn_conv",
    statement="under autocast f has the dtype of nn.ConvNd, and is right for the rounded operands",
    domain="the public form, a stranger's callable as it is; float32, which autocast lowers, and "
    "float64, which it leaves alone",
    dtypes=("float32", "float64"),
    check=_lowers,
    about_oracle=False,
    share=0.5,
)


# -- masks of whole numbers ----------------------------------------------------------------------


def _any_mask_dtype(t: Trial) -> None:
    expected = public(t)
    for dtype in (torch.bool, torch.uint8, torch.int64):
        word = "bool" if dtype == torch.bool else None
        given = t.case.with_options(mask_dtype=word)
        if declines(t.implementation, t.variant, given):
            continue
        try:
            got = public(t, mask=own_mask(t).to(dtype))
        except (ValueError, TypeError, RuntimeError):
            t.require(dtype != torch.bool, "a bool mask is refused")
            continue  # refused aloud
        t.agree(got, expected, twice(t.bound()), f"mask of {dtype}")


TAKES_MASKS_OF_WHOLE_NUMBERS = Law(
    id="G42",
    name="takes_masks_of_bools_and_integers",
    statement="f(x, m) is the same for m of bools, or of integers if these are not refused aloud",
    domain="the public form; masks of 0 and 1",
    requires=frozenset({Trait.BROADCASTS_MASK}),
    within=binary,
    check=_any_mask_dtype,
    about_oracle=False,
)
