"""A masked kernel in each step: the example, and what masking the input can stand in for."""

import torch
from torch import Tensor

from harness.claim import Answer, Judgement, claim, decide, decide_on
from properties.claims._tools import QUESTION, cases_of, experiment, held, variant

IMAGE = torch.arange(16.0).view(1, 1, 4, 4)
ONES = torch.ones(1, 1, 2, 2)
PRESENT = 1 - torch.eye(4).flip(1)
PRESENT[1:3] = PRESENT[1:3].flip(1)
PRESENT = PRESENT.view(1, 1, 4, 4)
PLAIN, WANTED = [[10.0, 18.0], [42.0, 50.0]], [[5.0, 15.0], [30.0, 40.0]]


def _windows(mask: Tensor, stride: int = 2) -> Tensor:
    """Return what every 2x2 window sees of a mask, shape `(1, 1, 2, 2, *out_size)`."""
    return mask.unfold(2, 2, stride).unfold(3, 2, stride).permute(0, 1, 4, 5, 2, 3)


@claim(
    "002.1", QUESTION,
    "A 2x2 kernel of ones with stride 2 answers 0 to 15 in a square with 10, 18, 42, 50.",
    Answer.TRUE,
)  # fmt: skip
def unmasked_example() -> Judgement:
    """Compute the example."""
    y = variant("plain").functional(IMAGE, ONES, stride=2)[0, 0].tolist()
    return decide(y == PLAIN, f"output {y}")


@claim("002.2", QUESTION, "With its four masks the example gives 5, 15, 30, 40.", Answer.TRUE)
def masked_example() -> Judgement:
    """Compute the example with the input masked and with the kernel masked in each step."""
    inputs = variant("input_masked").functional(IMAGE, ONES, None, PRESENT, stride=2)
    steps = variant("window_masked").functional(IMAGE, ONES, None, _windows(PRESENT), stride=2)
    found = [y[0, 0].tolist() for y in (inputs, steps)]
    return decide(
        found == [WANTED] * 2, f"input masked {found[0]}, kernel masked in each step {found[1]}"
    )


@claim(
    "002.3", QUESTION,
    "Where missing pixels make the masks, masking the input equals masking the kernel in each step.",
    Answer.TRUE,
)  # fmt: skip
def missing_pixels_mask_either() -> Judgement:
    """Judge the law of unfolded masks."""
    law = experiment("W2", "window_masked")
    return decide(held(law), f"law W2 holds in {law.cases} cases of any stride and padding")


@claim(
    "002.4", QUESTION, "Masking the input equals masking the kernel in each step, for any masks.",
    Answer.TRUE_ON, domain="windows that share no pixel",
)  # fmt: skip
def any_masks_mask_either() -> Judgement:
    """Judge the law of windows apart; then find masks that no input mask can stand in for."""
    law = experiment("W3", "window_masked")
    line, kernel = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.ones(1, 1, 2)
    # the pixel in the middle is read twice, and hidden once
    steps = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).T.reshape(1, 1, 2, 2)
    wanted = variant("window_masked").functional(line, kernel, None, steps)
    masks = [torch.tensor([[[int(b) for b in f"{n:03b}"]]]).float() for n in range(8)]
    found = [variant("input_masked").functional(line, kernel, None, m) for m in masks]
    return decide_on(
        held(law), any(torch.equal(y, wanted) for y in found),
        f"law W3 holds in {law.cases} cases; of 1 2 4 with a kernel of two ones and stride 1, masks "
        f"in each step give {wanted.flatten().tolist()}, the 8 masks of the input "
        f"{[[int(v) for v in y.flatten()] for y in found]}",
    )  # fmt: skip


@claim(
    "002.5", QUESTION, "The masks of all steps put side by side are a matrix of the input's shape.",
    Answer.TRUE_ON, domain="stride equal to the kernel, no padding",
)  # fmt: skip
def steps_tile_the_input() -> Judgement:
    """Count the entries of the masks of all steps against those of the input."""
    tiles, overlapping = _windows(PRESENT), _windows(PRESENT, stride=1)
    back = tiles.permute(0, 1, 4, 2, 5, 3).reshape(1, 1, 4, 4)
    return decide_on(
        torch.equal(back, PRESENT), overlapping.numel() == PRESENT.numel(),
        f"stride 2: {tiles.numel()} entries for {PRESENT.numel()} pixels, put together they are the "
        f"matrix; stride 1: {overlapping.numel()} entries",
    )  # fmt: skip


@claim("002.6", QUESTION, "Partial convolution gives what the example asks for.", Answer.FALSE)
def partial_answers() -> Judgement:
    """Compute the example by partial convolution."""
    y = variant("partial").functional(IMAGE, ONES, None, PRESENT, stride=2).output[0, 0]
    near = [[round(v, 3) for v in row] for row in y.tolist()]
    return decide(y.tolist() == WANTED, f"output {near}, wanted {WANTED}")


@claim(
    "002.7", QUESTION, "Partial convolution weights its output by a ratio of the mask.", Answer.TRUE
)
def partial_weights_by_a_ratio() -> Judgement:
    """Compare with the masked input's output times window over coverage, which is whole here."""
    image, present = IMAGE, PRESENT.clone()
    present[..., :2, :2] = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    present[..., 2:, :2] = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    present[..., 2:] = 1.0
    masked = variant("input_masked").functional(image, ONES, None, present, stride=2)
    ratio = 4 / variant("plain").functional(present, ONES, stride=2)
    y = variant("partial").functional(image, ONES, None, present, stride=2).output
    laws = experiment("P2", "partial"), experiment("P1", "partial")
    return decide(
        torch.equal(y, masked * ratio) and not torch.equal(y, masked) and held(*laws),
        f"ratios {ratio.flatten().tolist()} turn {masked.flatten().tolist()} into "
        f"{y.flatten().tolist()}; laws P1 and P2 hold in {cases_of(*laws)} cases",
    )


@claim(
    "002.8", QUESTION, "Multiplying the input by the mask is enough.",
    Answer.TRUE_ON, domain="finite values where the input is masked",
)  # fmt: skip
def multiplying_is_enough() -> Judgement:
    """Put NaN into the missing pixels."""
    spoilt = IMAGE.where(PRESENT > 0, torch.tensor(float("nan")))
    plain = variant("plain").functional
    finite = plain(IMAGE * PRESENT, ONES, stride=2)[0, 0].tolist()
    multiplied = plain(spoilt * PRESENT, ONES, stride=2)[0, 0].tolist()
    selected = variant("input_masked").functional(spoilt, ONES, None, PRESENT, stride=2)
    return decide_on(
        finite == WANTED, multiplied == WANTED,
        f"finite pixels give {finite}; with NaN in the missing ones {multiplied}, where selecting "
        f"gives {selected[0, 0].tolist()}",
    )  # fmt: skip
