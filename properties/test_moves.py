"""The axes of every argument are known, and moving them twice moves them back."""

from dataclasses import replace

import pytest
import torch

from harness.case import ConvCase
from harness.check import Trial
from harness.table import load_table
from harness.tensors import leaves
from harness.variant import Arg, Role
from properties import moves
from properties.moves import Along

TABLE = load_table()
LINE = "n2 c{channels}>4 i6x7 k3x3 s2x1 p1x1 d1x1 g2"
VARIANTS = pytest.mark.parametrize("variant", TABLE.variants.values(), ids=lambda v: v.name)


def _trial(variant, **options):
    line = LINE.format(channels="2+4+2+2" if variant.domain.sources else "4")
    case = ConvCase.parse(line).with_options(**options)
    return Trial(variant, variant.reference, case)


def _with_every_word(variant):
    for name, words in variant.options.items():
        for word in words:
            yield _trial(variant, **{name: word})


@VARIANTS
def test_every_axis_of_every_argument_is_known(variant):
    for t in _with_every_word(variant):
        found = leaves(moves.moved(t, lambda _, axes: torch.tensor(len(axes))))
        for name, value in leaves(t.tensors).items():
            assert found[name] == value.dim()


@VARIANTS
def test_swapping_two_axes_twice_changes_nothing(variant):
    for t in _with_every_word(variant):
        back = _trial(variant, **dict(t.case.options))
        if t.case.sources:
            image, row, column, scalar = t.case.sources
            back.case = replace(t.case, sources=(image, column, row, scalar))
        back.tensors, back.keywords = moves.swapped(t, 0, 1)
        arguments, keywords = moves.swapped(back, 0, 1)
        for name, value in leaves(arguments).items():
            assert value.equal(leaves(t.tensors)[name])
        assert keywords == {name: t.keywords[name] for name in keywords}


def test_taps_and_outputs_of_a_window_mask_are_told_apart():
    axes = moves.axes_of(_trial(TABLE.variant("window_masked")))["mask"]
    assert [axis.along for axis in axes] == [
        Along.BATCH, Along.CHANNEL, Along.TAP, Along.TAP, Along.OUTPUT, Along.OUTPUT,
    ]  # fmt: skip


def test_an_axis_of_no_known_size_is_named():
    plain = TABLE.variant("plain")
    strange = Arg(name="table", role=Role.MASK, shape=lambda _: (17,))
    t = _trial(plain)
    t.variant = replace(plain, args=(*plain.args, strange))
    with pytest.raises(ValueError, match=r"table.shape=\(17,\) has an axis of 17, which must be"):
        moves.axes_of(t)
