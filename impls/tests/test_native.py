"""The operations in C++: built once, refused with a reason, never in the way of autograd."""

import shutil

import pytest
import torch

from harness.__main__ import main
from harness.api import BuildError, ConvCase
from harness.check import Trial
from harness.table import load_table
from harness.tensors import make_tensors
from impls import partial
from impls._shared import native

NO_COMPILER = shutil.which("g++") is None and shutil.which("clang++") is None
built = pytest.mark.skipif(native.BUILD.missing() is not None, reason="the C++ is not built")
compiles = pytest.mark.skipif(NO_COMPILER, reason="no C++ compiler")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Sources and a cache of their own."""
    sources = tmp_path / "sources"
    sources.mkdir()
    monkeypatch.setattr(native, "FOLDER", sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for cached in (native._library, native._reader):
        cached.cache_clear()
    yield sources
    for cached in (native._library, native._reader):
        cached.cache_clear()


def test_without_a_compiler_the_reason_is_said(elsewhere, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert main(["build"]) == 1
    assert "no C++ compiler: none of g++, clang++ is on PATH" in capsys.readouterr().out


def test_what_is_not_built_is_not_taken_and_says_how_to_build_it(elsewhere):
    form = next(i for i in partial.VARIANT.implementations if i.name == "native")
    assert form.missing() == "its C++ is not built: python3 -m harness build"
    with pytest.raises(BuildError, match="python3 -m harness build"):
        native.operations()


@compiles
def test_sources_that_do_not_compile_leave_nothing_behind(elsewhere):
    (elsewhere / "broken.cpp").write_text("int main( {", encoding="utf-8")
    with pytest.raises(BuildError, match=r"ended with 1:\n.*broken.cpp"):
        native.build()
    assert list(native._library().parent.iterdir()) == []


@compiles
def test_it_is_built_once_and_again_for_other_sources(elsewhere):
    source = elsewhere / "one.cpp"
    source.write_text("int one() { return 1; }", encoding="utf-8")
    first = native.build()
    before = first.stat().st_mtime_ns
    assert native.build() == first
    assert first.stat().st_mtime_ns == before
    source.write_text("int one() { return 2; }", encoding="utf-8")
    native._library.cache_clear()
    assert native.build() != first


@built
def test_only_tensors_with_values_and_entries_are_taken():
    x = torch.ones(2, 3, 4, 4)
    assert native.takes(x, None, x.double().float())
    assert not native.takes(x, x.double())
    assert not native.takes(x.half())
    assert not native.takes(x[:0])
    assert not native.takes(x.to("meta"))
    seen = []
    torch.func.vmap(lambda sample: seen.append(native.takes(sample)) or sample)(x)
    assert seen == [False]


WIDTHS = (1, 7, 8, 9, 63, 64, 65)  # beside a register of 8, and where the library multiplies
LAYERS = {
    "boundary": "n{width} c3>17 i5x6 k3x3 s1x1 d1x1 g1 b1 method=explicit",
    "tile_concat": "n{width} c2+1+3+2>17 i5x6 k3x3 s2x1 p1x1 d1x1 g1 b1",
    "multi_source": "n{width} c2+1+3+2>17 i5x6 k3x3 s1x2 p1x1 d1x1 g1 b1",
}


@built
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", LAYERS)
def test_products_of_every_width_are_the_definition(name, width):
    table = load_table()
    variant = table.variant(name)
    form = table.implementation(variant, "native")
    case = ConvCase.parse(f"{LAYERS[name].format(width=width)} float32 contiguous exact seed0")
    trial = Trial(variant, form, case)
    trial.agree(trial(), trial.truth(), trial.bound())
    trial.agree(trial.gradients(), trial.true_gradients(), trial.gradient_bound())


@built
@pytest.mark.parametrize("filters", [71, 72])  # 4 times 18 outputs: from there on a product
def test_the_gradient_of_a_large_weight_is_written_where_it_lies(filters):
    line = f"n1 c2+1+3+2>{filters} i5x6 k3x3 s2x1 p1x1 d1x1 g1 b1 float32 contiguous exact seed0"
    table = load_table()
    variant = table.variant("tile_concat")
    trial = Trial(variant, table.implementation(variant, "native"), ConvCase.parse(line))
    trial.agree(trial.gradients(), trial.true_gradients(), trial.gradient_bound())


PLANES = {
    "a row of whole registers": "n2 c3>3 i5x16 k3x3 s1x1 p1x1 d1x1 g3",
    "less than a register": "n2 c3>3 i4x3 k3x3 s1x1 p1x1 d1x1 g3",
    "strides": "n1 c2>2 i9x23 k3x4 s2x3 p1x2 d1x1 g2",
    "gaps, a stride that divides none": "n1 c2>2 i11x17 k2x3 s3x2 p0x3 d3x3 g2",
    "a ring wider than windows reach back": "n1 c2>2 i3x9 k2x2 s1x1 p3x3 d1x1 g2",
    "several filters of a channel": "n2 c2>6 i5x11 k3x3 s1x1 p1x1 d1x1 g2",
    "one axis": "n2 c4>4 i37 k5 s1 p2 d2 g4",
    "three axes": "n1 c2>2 i3x4x9 k2x3x2 s1x2x1 p1x0x1 d1x1x2 g2",
}


@built
@pytest.mark.parametrize("line", PLANES.values(), ids=PLANES)
@pytest.mark.parametrize(
    "name", ["masked mask=bernoulli:0.5", "partial mask=bernoulli:0.5", "kernel_masked kernel_mask=checkerboard"]
)  # fmt: skip
def test_depthwise_convolutions_are_the_definition(name, line):
    table = load_table()
    name, _, option = name.partition(" ")
    variant = table.variant(name)
    case = ConvCase.parse(f"{line} b1 float64 contiguous real seed0 {option}")
    trial = Trial(variant, table.implementation(variant, "native"), case)
    trial.agree(trial(), trial.truth(), trial.bound())
    trial.agree(trial.gradients(), trial.true_gradients(), trial.gradient_bound())


@built
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("boundary", "method=explicit"), ("boundary", "method=diff"), ("diff", ""),
        ("kernel_masked", "p1x1 kernel_mask=cross"), ("masked", "p1x1 mask=bernoulli:0.5"),
        ("partial", "p1x1 mask=bernoulli:0.5"),
    ],
)  # fmt: skip
def test_gradients_of_depthwise_convolutions_have_gradients(name, option):
    variant = load_table().variant(name)
    case = ConvCase.parse(f"n1 c2>2 i5x5 k3x3 {option} g2 b1 float64 contiguous real seed1")
    given = make_tensors(variant, case, "cpu")
    moved = {key: given[key].requires_grad_() for key in ("x", "weight", "bias")}
    call = load_table().implementation(variant, "native").load()

    def output(*tensors):
        found = call(
            **{**given, **dict(zip(moved, tensors, strict=True))}, **variant.call_keywords(case)
        )
        return found if isinstance(found, torch.Tensor) else found[0]

    assert torch.autograd.gradgradcheck(output, tuple(moved.values()))


@built
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bias": torch.ones(1)}, "bias"), ({"bias": torch.ones(5)}, "bias"),
        ({"weight": torch.ones(3, 1, 3, 3), "bias": torch.ones(3)}, "divisible"),
        ({"padding": (-1, 1)}, "negative padding"), ({"stride": (1, 0)}, "stride"),
        ({"dilation": (0, 1)}, "dilation"), ({"weight": torch.ones(2, 1, 9, 9)}, "Kernel size"),
    ],
)  # fmt: skip
def test_depthwise_convolutions_refuse_what_the_library_refuses(changes, said):
    call = load_table().implementation(load_table().variant("masked"), "native").load()
    given = {
        "x": torch.ones(1, 2, 6, 6), "weight": torch.ones(2, 1, 3, 3), "bias": torch.ones(2),
        "mask": torch.ones(1, 2, 6, 6), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1),
        "groups": 2,
    }  # fmt: skip
    call(**given)
    with pytest.raises(RuntimeError, match=said):
        call(**(given | changes))
