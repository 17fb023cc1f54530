"""What the operations of this table may cost at most."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.case import ConvCase
from harness.goal import Goal, Rival
from harness.table import load_table
from harness.tensors import make_tensors
from properties import floors

TABLE = load_table()
WIDE = 32
SMALL = ("unet_bottleneck_8x8",)


def _cases(name: str, names: Iterable[str] = (), **options: str | None) -> dict[str, str]:
    """Return the named cases of a variant, all by default, with options set, none twice."""
    cases = TABLE.variant(name).cases
    found: dict[str, str] = {}
    for key in names or cases:
        line = str(ConvCase.parse(cases[key]).with_options(**options))
        if line not in found.values():
            found[key] = line
    return found


def _plain(case: ConvCase) -> Rival:
    """Return the plain convolution of the same geometry, of the first source alone."""
    image = case.sources[0] if case.sources else case.c_in
    return Rival("plain", "library", str(replace(case, c_in=image, sources=(), options=())))


def _replicated(case: ConvCase) -> Rival:
    """Return the plain convolution padded by replicating."""
    bare = replace(case, options=())
    return Rival("plain", "library", str(bare.with_options(padding_mode="replicate")))


def _reference(name: str, **options: str) -> Mapping[str, object]:
    variant = TABLE.variant(name)
    return {
        "variant": name,
        "against": lambda case: Rival(
            name, variant.reference.name, str(case.with_options(**options))
        ),
    }


def _kept(case: ConvCase) -> float:
    """Return which share of the taps is kept."""
    mask = make_tensors(TABLE.variant("kernel_masked"), case, "cpu")["kernel_mask"]
    return float((mask > 0).double().mean())


def _of_taps() -> dict[str, str]:
    """Return the frozen layers whose masks are named after a network, and the sizes of a mask."""
    cases = {**_cases("kernel_masked")}
    for family, sides in (
        ("pixelcnn_a", (3, 5, 7)),
        ("pixelcnn_b", (3, 5, 7)),
        ("checkerboard", (3,)),
    ):
        for side in sides:
            cases[f"{family}_{side}"] = (
                f"n1 c64>64 i32x32 k{side}x{side} p{side // 2}x{side // 2} "
                f"float32 contiguous real seed0 kernel_mask={family} mask=none"
            )
    return {name: str(ConvCase.parse(line)) for name, line in cases.items()}


def _with_metadata(least: float) -> dict[str, str]:
    """Return layers whose metadata has at least so many times the channels of their image."""
    found = {}
    for name, line in _cases("tile_concat").items():
        case = ConvCase.parse(line)
        image = case.sources[0]
        extra = max(1, round(least * image / (len(case.sources) - 1)))
        sources = (image, *(extra,) * (len(case.sources) - 1))
        found[name] = str(replace(case, sources=sources, c_in=sum(sources)))
    return found


TAPS = _of_taps()

GOALS = (
    Goal(
        operation="partial, a mask per channel", variant="partial", against=_plain,
        floor=floors.of_partial,
        cases=_cases("partial"), limits={"forward": 1.08, "backward": 1.05},
    ),
    Goal(
        operation="partial, a shared mask", variant="partial", against=_plain,
        floor=floors.of_partial,
        cases=_cases("partial", mask_channels="one"), limits={"forward": 1.04, "backward": 1.03},
    ),
    Goal(
        operation="partial, padding only", variant="partial", against=_plain,
        floor=floors.of_partial,
        cases=_cases("partial", mask="none"), limits={"forward": 1.04, "backward": 1.03},
    ),
    Goal(
        operation="masked, a mask per channel", variant="masked", against=_plain,
        floor=floors.of_masked,
        cases=_cases("masked"), limits={"forward": 1.08, "backward": 1.04},
    ),
    Goal(
        operation="masked, a shared mask", variant="masked", against=_plain,
        floor=floors.of_masked,
        cases=_cases("masked", mask_channels="one"), limits={"forward": 1.04, "backward": 1.04},
    ),
    Goal(
        operation="masked, no mask", variant="masked", against=_plain,
        cases=_cases("masked", mask="none"), limits={"forward": 1.01, "backward": 1.01},
    ),
    Goal(
        operation="kernel_masked, wide layers, to the share of kept taps",
        variant="kernel_masked", against=_plain, share=_kept, floor=floors.of_kernel_masked,
        cases={n: c for n, c in TAPS.items() if ConvCase.parse(c).c_in >= WIDE
               and ConvCase.parse(c).groups == 1},
        limits={"forward": 1.10, "backward": 1.10},
    ),
    Goal(
        operation="kernel_masked, every layer", variant="kernel_masked", against=_plain,
        cases=TAPS, every=True, limits={"forward": 1.02, "backward": 1.02},
    ),
    Goal(
        operation="input_masked", variant="input_masked", against=_plain,
        cases=_cases("input_masked"), limits={"forward": 1.08, "backward": 1.08},
    ),
    Goal(
        operation="window_masked, to unfold and matmul", cases=_cases("window_masked"),
        floor=floors.of_window_masked,
        limits={"forward": 1 / 3, "backward": 1 / 3, "memory": 1 / 5},
        **_reference("window_masked"),
    ),
    Goal(
        operation="multi_source, to its image alone", variant="multi_source", against=_plain,
        floor=floors.of_multi_source,
        cases={n: c for n, c in _cases("multi_source").items() if n not in SMALL},
        limits={"forward": 1.06, "backward": 1.06},
    ),
    Goal(
        operation="multi_source at 8x8, to its image alone", variant="multi_source",
        floor=floors.of_multi_source, against=_plain, cases=_cases("multi_source", SMALL),
        limits={"forward": 1.5, "backward": 1.5},
    ),
    Goal(
        operation="tile_concat, metadata as wide as the image, to tiling",
        floor=floors.of_tile_concat, cases=_with_metadata(1.0), limits={"forward": 0.5, "backward": 0.5},
        **_reference("tile_concat"),
    ),
    Goal(
        operation="tile_concat, every layer, to tiling", cases=_cases("tile_concat"), every=True,
        floor=floors.of_tile_concat,
        limits={"forward": 1.0, "backward": 1.0}, **_reference("tile_concat"),
    ),
    Goal(
        operation="tile_concat, to its image alone", variant="tile_concat", against=_plain,
        cases=_cases("tile_concat"), limits={"memory": 1.05},
    ),
    Goal(
        operation="diff, to replicating", variant="diff", against=_replicated,
        floor=floors.of_diff,
        cases=_cases("diff"), limits={"forward": 1.0, "backward": 1.0, "memory": 1.0},
    ),
    Goal(
        operation="boundary, a kernel per displacement", variant="boundary", against=_plain,
        floor=floors.of_explicit,
        cases=_cases("boundary", method="explicit"), limits={"forward": 1.25, "backward": 1.25},
    ),
)  # fmt: skip
