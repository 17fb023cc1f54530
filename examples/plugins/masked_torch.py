"""ivanstepanovftw/masked_torch: its layers as implementations of `masked` and `partial`."""

from collections import namedtuple

from harness.api import checkout, from_layer

nn = checkout("MASKED_TORCH_PATH", "masked_torch.nn", "github.com/ivanstepanovftw/masked_torch")
Output, MANY = namedtuple("Output", "output mask"), {"multichannel": True}


def first(result):  # in one group every channel of the new mask is the same
    return Output(result[0], result[1][:, :1])


def given(case, channels=None, **options):  # a mask of floating-point numbers
    options |= {"mask": None} if ("mask", "none") in case.options else {}
    return case.with_options(padding_mode=None, mask_dtype=None, mask_channels=channels, **options)


def mode(suffix, kind, within, returns=Output._make, **fixed):
    classes = {rank: getattr(nn, f"{kind}Conv{rank}d") for rank in (1, 2, 3)}
    return from_layer(f"masked_torch{suffix}", classes, returns=returns, within=within, **fixed)


SHARED = mode("", "Partial", lambda c: given(c, "one", mask_batch="one"))
OWN = mode("_channels", "Partial", lambda c: None if c.groups > 1 else given(c), first, **MANY)
APART = mode("_groups", "Partial", lambda c: given(c) if c.groups > 1 else None, **MANY)
ANY = mode("", "Masked", lambda c: given(c, apply_mask=None))
POINT = mode("_1x1", "Masked", ANY.within, sides=(1,))  # where more kernels only raise
IMPLEMENTATIONS = {"masked": [ANY, POINT], "partial": [SHARED, OWN, APART]}
