"""A stranger's layer becomes an implementation, whatever it calls things."""

import copy
import pickle
from typing import NamedTuple

import pytest
import torch
from torch import nn

from harness.__main__ import main
from harness.case import ConvCase
from harness.effort import Profile
from harness.layers import from_layer
from harness.search import replay, search
from harness.selection import declines
from harness.table import load_table
from impls.partial import PartialConv2d

EFFORT = Profile(cases=30)
TABLE = load_table()


class Outputs(NamedTuple):
    """What a partial convolution returns."""

    output: torch.Tensor
    mask: torch.Tensor


class Inner(nn.Module):
    """A layer of the input's size that keeps its parameters in a module inside."""

    def __init__(self, c_in, c_out, kernel_size, groups=1, bias=True):
        super().__init__()
        self.inner = nn.Conv2d(c_in, c_out, kernel_size, padding="same", groups=groups, bias=bias)

    def forward(self, x):
        """Return the convolution."""
        return self.inner(x)


class ByKeyword(PartialConv2d):
    """A layer that takes its mask by name and returns a plain tuple."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.multi_channel = False

    def forward(self, x, *, mask_in=None):
        """Return the output and its mask."""
        return tuple(super().forward(x, mask_in))


class Summed(nn.Module):
    """A layer of several sources with a layer inside for each."""

    def __init__(self, in_channels, c_out, kernel_size, stride=1, padding=0, dilation=1, bias=True):
        super().__init__()
        line, scalar = in_channels
        self.line = nn.Conv1d(line, c_out, kernel_size, stride, padding, dilation, bias=bias)
        self.scalar = nn.Linear(scalar, c_out, bias=False) if scalar else None

    def forward(self, line, scalar):
        """Return the sum of what the sources give."""
        y = self.line(line)
        return y if scalar is None else y + self.scalar(scalar)[:, :, None]


def _only(**words):
    def reason(case):
        wrong = [name for name, word in words.items() if case.option(name, word) != word]
        return f"{wrong[0]} is another" if wrong else None

    return reason


STRANGERS = {
    "plain": from_layer("nn", {1: nn.Conv1d, 2: nn.Conv2d}, takes=("padding_mode",)),
    "boundary": from_layer(
        "inner", {2: Inner}, state=("inner.weight", "inner.bias"),
        unsupported=_only(method="zeros"),
    ),
    "partial": from_layer(
        "by_keyword", {2: ByKeyword}, takes=("padding_mode",), by_name=("mask_in",),
        returns=Outputs._make,
        unsupported=lambda case: None if case.option("mask_channels", "all") == "one" else "one mask",
    ),
    "multi_source": from_layer(
        "summed", {1: Summed}, state=(("line.weight", "scalar.weight"), ("line.bias", "scalar.bias")),
        unsupported=lambda case: None if case.sources[0] else "the size is told by the line",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("law", ["G1", "G1b", "L1", "G26b", "G39", "G40"])
def test_a_strange_layer_is_adapted_and_judged(name, law):
    finding = search(TABLE.laws[law], TABLE.variant(name), STRANGERS[name], EFFORT)
    assert finding.outcome == "HOLDS", finding.screen
    assert finding.cases


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("law", ["G22d", "G22e", "G38b"])
def test_a_strange_layer_is_mapped_and_traced_as_it_is(name, law):
    finding = search(TABLE.laws[law], TABLE.variant(name), STRANGERS[name], EFFORT)
    assert finding.outcome == "HOLDS", finding.screen


@pytest.mark.parametrize("law", ["G37", "G38"])
@pytest.mark.parametrize("name", ["plain", "multi_source"])
def test_a_strange_layer_is_compiled_and_exported_as_a_layer(name, law):
    lines = {"plain": "n2 c2>2 i5x4 k3x3 p1x1", "multi_source": "n2 c2+1>2 i5 k3 p1"}
    case = ConvCase.parse(lines[name])
    finding = replay(TABLE.laws[law], TABLE.variant(name), STRANGERS[name], case)
    assert finding.outcome == "HOLDS", finding.screen


SQUARE = from_layer(
    "square", {2: Inner}, state=("inner.weight", "inner.bias"), sides=(3, 5),
    within=lambda case: case.with_options(method=None),
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "moved"),
    [
        ("n1 c1>1 i5x5 k3x3 p1x1", "n1 c1>1 i5x5 k3x3 p1x1"),
        ("n1 c2>2 i5x5 k3x3 p1x1 s2x1 g2", "n1 c2>2 i5x5 k3x3 p1x1 g2"),
        ("n1 c1>1 i3x9 k1x5 p0x2", "n1 c1>1 i5x9 k5x5 p2x2"),
        ("n1 c1>1 i7x7 k7x7 p3x3", "n1 c1>1 i7x7 k5x5 p2x2"),
        ("n1 c1>1 i2x2 k3x3 p1x1 method=reflect", "n1 c1>1 i3x3 k3x3 p1x1"),
        ("n1 c1>1 i5x5 k3x3 p2x2 d2x2", "n1 c1>1 i5x5 k3x3 p1x1"),
        ("n1 c1>1 i5 k3 p1", None),
    ],
)
def test_a_drawn_case_is_moved_to_where_a_layer_computes_it(line, moved):
    case, inside = ConvCase.parse(line), moved and ConvCase.parse(moved)
    assert SQUARE.within(case) == inside
    if inside:
        assert SQUARE.within(inside) == inside
        assert declines(SQUARE, TABLE.variant("boundary"), inside) is None
    assert (declines(SQUARE, TABLE.variant("boundary"), case) is None) == (case == inside)


def test_what_within_moves_is_declined_where_it_is_given():
    case = ConvCase.parse("n1 c1>1 i3x3 k3x3 p1x1 method=reflect")
    reason = declines(SQUARE, TABLE.variant("boundary"), case)
    assert reason == "outside of what it computes"


def test_a_narrow_layer_meets_its_share_of_cases():
    finding = search(TABLE.laws["G1"], TABLE.variant("boundary"), SQUARE, EFFORT)
    assert finding.outcome == "HOLDS", finding.screen
    assert finding.cases >= EFFORT.cases // 3  # one rank of three


@pytest.mark.parametrize(
    ("name", "case", "reason"),
    [
        ("plain", "n1 c1>1 i1x1x1 k1x1x1", "has no class for 3 spatial dimensions"),
        ("boundary", "n1 c1>1 i5x5 k3x3 p1x1 s2x2", "takes no argument 'stride'"),
        ("boundary", "n1 c1>1 i5x5 k3x3 p1x1 method=reflect", "method is another"),
        ("multi_source", "n1 c2+2>2 i3 k3 g2", "takes no argument 'groups'"),
        (
            "multi_source",
            "n1 c2+2>2 i3 k3 padding_mode=reflect",
            "takes no argument 'padding_mode'",
        ),
    ],
)
def test_a_case_that_a_strange_layer_cannot_have_is_declined(name, case, reason):
    assert declines(STRANGERS[name], TABLE.variant(name), ConvCase.parse(case)) == reason


def test_a_layer_without_padding_serves_no_variant_that_has_it():
    case = ConvCase.parse("n1 c1>1 i5x5 k3x3")
    reason = declines(STRANGERS["boundary"], TABLE.variant("plain"), case)
    assert reason == "takes no argument 'padding'"


def test_an_adapted_layer_is_copied_with_its_names():
    case = ConvCase.parse("n1 c1>1 i3x3 k3x3 mask_channels=one")
    tensors = {"x": torch.ones(1, 1, 3, 3), "weight": torch.ones(1, 1, 3, 3), "bias": None}
    module, inputs = STRANGERS["partial"].layer(case, tensors | {"mask": torch.ones(1, 1, 3, 3)})
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert isinstance(other(*inputs), Outputs)


def test_check_judges_a_layer_by_the_laws_of_layers(capsys):
    assert main(["check", "partial/layer/G39 n1 c1>1 i3 k2"]) == 0
    assert "HOLDS" in capsys.readouterr().out
    assert main(["check", "partial/layer/P1 n1 c1>1 i3 k2"]) == 2
    assert (
        "law P1 does not apply to partial/layer: it is no law of layers" in capsys.readouterr().err
    )
    assert main(["check", "partial/box_filter/G39 n1 c1>1 i3 k2"]) == 2
    assert "does not apply to partial/box_filter: it has no layer" in capsys.readouterr().err
