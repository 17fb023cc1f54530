"""`python3 -m harness growth`: sweep sizes, or search for a cost that grows beyond what it says.

The performance law is "cost grows no faster than declared": Hypothesis draws layers and the size
that grows, the clock judges, a violation is repeated in fresh processes and made small.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from harness import clock, growth, overgrowth
from harness.case import CaseError, ConvCase
from harness.comparison import Comparison
from harness.contest import Rules
from harness.evidence import EVIDENCE, Evidence, Made
from harness.gate import unproved
from harness.growth import (
    AXES,
    COLUMNS,
    STEPS,
    TOLERATED,
    Growth,
    Ladder,
    Verdict,
    cells_of,
    line_of,
)
from harness.selection import fastest
from harness.table import Table
from harness.terminal import write_lines
from harness.variant import Variant

BASE = "n1 c{channels}>8 i16x16 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of `growth`."""
    command.add_argument("--variant", action="append", default=[], help="only this variant")
    command.add_argument("--implementation", help="instead of what the table chooses")
    command.add_argument("--axis", action="append", default=[], choices=AXES, help="only this size")
    command.add_argument("--case", metavar="DESCRIPTOR", help="where the ladders begin")
    command.add_argument("--direction", choices=("forward", "backward"), default="forward")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    command.add_argument("--processes", type=int, default=5, metavar="P")
    command.add_argument("--blocks", type=int, default=10, metavar="B")
    command.add_argument("--search", action="store_true", help="search all layers for a violation")
    command.add_argument("--budget-s", type=float, default=600.0, metavar="S", help="of the search")
    command.add_argument("--seed", type=int, help="of the search; by chance if not given")
    command.add_argument("--write", action="store_true", help="keep the table as evidence")


def run(options: argparse.Namespace, table: Table) -> int:
    """Sweep or search; return 1 where a cost grows beyond what is declared.

    Raises:
        CaseError, UnknownName: bad input.
    """
    names = options.variant or list(table.variants)
    variants = [table.variant(name) for name in names]
    return (overgrowth.run if options.search else _sweep)(options, table, variants)


# -- the sweep ---------------------------------------------------------------------------------


def ladders(options: argparse.Namespace, table: Table, variant: Variant) -> list[Ladder]:
    """Return what is swept of a variant: every size of one implementation.

    Raises:
        CaseError: the case is none of the variant's, or the implementation does not grow from it.
    """
    case = _base(variant) if options.case is None else ConvCase.parse(options.case)
    variant.check_case(case)
    chosen = (
        table.implementation(variant, options.implementation)
        if options.implementation else fastest(variant, case, options.device)
    )  # fmt: skip
    found = []
    for axis in options.axis or AXES:
        one = Ladder(variant.name, chosen.name, options.direction, axis, STEPS[axis], str(case))
        if len(rungs := one.rungs(variant, chosen)) < growth.LEAST_RUNGS:
            raise CaseError(
                f"{variant.name}/{chosen.name} computes {len(rungs)} sizes of the {axis} from "
                f"{case} on, and a fit takes {growth.LEAST_RUNGS}"
            )
        found.append(one)
    return found


def _base(variant: Variant) -> ConvCase:
    case = ConvCase.parse(BASE.format(channels="2+2+2+2" if variant.domain.sources else "8"))
    return variant.domain.settle(case) if variant.domain.settle else case


def _sweep(options: argparse.Namespace, table: Table, variants: Sequence[Variant]) -> int:
    started, rules = clock.utc_now(), Rules(options.processes, options.blocks)
    some = [one for variant in variants for one in ladders(options, table, variant)]
    bad = unproved({one: one.cells(table) for one in some}, options.device)
    write_lines([f"not timed: {reason}" for reason in bad.values()])
    # all in the same processes: starting one takes longer than timing what one variant has
    good = [one for one in some if one not in bad]
    rows, placebos = growth.judge(good, rules, seed=0, device=options.device)
    found = [row for row in rows if row is not None]
    write_lines([line_of(row) for row in found])
    command = ["python3 -m harness growth", *_words(options)]
    made = Made.here(" ".join(command), started)
    evidence = as_evidence(found, placebos, rules, made)
    if options.write:
        write_lines([f"kept in {evidence.save(EVIDENCE)}"])
    return int(bool(bad) or any(row.verdict is Verdict.BEYOND for row in found))


def _words(options: argparse.Namespace) -> list[str]:
    words = [f"--variant {name}" for name in options.variant]
    words += [f"--implementation {options.implementation}"] if options.implementation else []
    words += [f"--axis {axis}" for axis in options.axis]
    words += [f"--case '{options.case}'"] if options.case else []
    words += [f"--direction {options.direction}", f"--processes {options.processes}"]
    words += [] if options.device == "cpu" else [f"--device {options.device}"]
    return [*words, f"--blocks {options.blocks}", "--write"]


def as_evidence(
    rows: Sequence[Growth], placebos: Sequence[Comparison], rules: Rules, made: Made
) -> Evidence:
    """Return the table of a sweep."""
    worst = max((abs((row.ratio or 1.0) - 1) for row in placebos), default=0.0)
    begin = "; ".join(dict.fromkeys(row.ladder.case for row in rows))
    return Evidence(
        name="growth",
        title="How the time grows with a size",
        about=(
            f"Exponent of the time over one size, all others fixed, from {begin or 'nothing'} on: "
            f"slope of the logarithms, fitted in each of {rules.processes} processes of "
            f"{rules.blocks} interleaved blocks, 95 % interval over them, one thread. Declared: "
            "the larger growth of the operations and of the bytes that the implementation "
            f"declares. BEYOND: the whole interval is above that by more than {TOLERATED}. The "
            f"smallest size timed twice differs by {worst:.1%} at most."
        ),
        made=made,
        columns=(*COLUMNS, "times, µs"),
        rows=tuple(
            (*cells_of(row), ", ".join(f"{time / 1e3:.4g}" for time in row.times_ns))
            for row in rows
        ),
    )
