"""`python3 -m harness break-even`: after how many calls a compiled form has paid."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from harness import clock
from harness.break_even import Pays, Result, Span, Subject, measure
from harness.case import CaseError, ConvCase
from harness.contest import Rules
from harness.evidence import EVIDENCE, Evidence, Made
from harness.gate import cell_for, examine, refusals
from harness.selection import declines, fastest
from harness.table import Table
from harness.terminal import write_lines
from harness.variant import Implementation, Need, Variant


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of `break-even`."""
    command.add_argument("--variant", action="append", default=[], help="only this variant")
    command.add_argument("--case", metavar="NAME|DESCRIPTOR", help="instead of the first quick one")
    command.add_argument("--direction", choices=("forward", "backward"), default="forward")
    # on a device compiling saves launches above all, which its clock leaves out
    command.add_argument("--device", choices=("cpu",), default="cpu")
    command.add_argument("--processes", type=int, default=5, metavar="P")
    command.add_argument("--blocks", type=int, default=20, metavar="B")
    command.add_argument("--write", action="store_true", help="keep the table as evidence")


def run(options: argparse.Namespace, table: Table) -> int:
    """Time compilations and what they gain; return 1 where a compiled form fails.

    Raises:
        CaseError, UnknownName: bad input.
    """
    started, rules = clock.utc_now(), Rules(options.processes, options.blocks)
    results: list[Result] = []
    for name in options.variant or table.variants:
        for subject in subjects(table, table.variant(name), options):
            refused = _refused(table, subject, options.device)
            result = (
                Result(subject, Pays.FAILED, reason=refused) if refused
                else measure(subject, rules, device=options.device)
            )  # fmt: skip
            results.append(result)
            write_lines([line_of(result)])
    if not results:
        write_lines(["no compiled form computes any of it"])
    if options.write:
        made = Made.here(" ".join(_words(options)), started)
        write_lines([f"kept in {as_evidence(results, rules, made).save(EVIDENCE)}"])
    return int(any(result.verdict is Pays.FAILED for result in results))


def subjects(table: Table, variant: Variant, options: argparse.Namespace) -> list[Subject]:
    """Return the compiled forms of a variant that compute the case.

    Raises:
        CaseError, UnknownName: the case is none of the variant's.
    """
    word = options.case or variant.quick[0]
    _, case = table.case(variant, word)
    instead = fastest(variant, case, options.device).name
    return [
        Subject(variant.name, form.name, instead, options.direction, str(case))
        for form in variant.implementations
        if Need.COMPILER in form.needs and _is_able(form, variant, case)
    ]


def _is_able(form: Implementation, variant: Variant, case: ConvCase) -> bool:
    if reason := form.missing():
        raise CaseError(f"{variant.name}/{form.name}: {reason}")
    return declines(form, variant, case) is None


def _refused(table: Table, subject: Subject, device: str) -> str:
    cells = [
        cell_for(table, subject.variant, name, subject.case, subject.direction)
        for name in (subject.instead, subject.compiled)
    ]
    found = refusals(examine(cells, device))
    return "; ".join(f"{cell.implementation}: {reason}" for cell, reason in found.items())


def _words(options: argparse.Namespace) -> list[str]:
    words = ["python3 -m harness break-even", *(f"--variant {name}" for name in options.variant)]
    words += [f"--case '{options.case}'"] if options.case else []
    words += [f"--direction {options.direction}", f"--processes {options.processes}"]
    return [*words, f"--blocks {options.blocks}", "--write"]


def line_of(result: Result) -> str:
    """Return the line of a terminal that shows one result."""
    one = result.subject
    head = f"{one.variant}/{one.compiled} {one.direction} {one.case}:"
    if not result.seen:
        return f"{head} {result.verdict}, {result.reason}"
    eager, own = (_mean(result, name) / 1e3 for name in ("eager_ns", "compiled_ns"))
    seconds = _mean(result, "compile_ns") / 1e9
    pays = "pays " * (result.verdict in (Pays.AFTER, Pays.NEVER))
    return (
        f"{head} {pays}{words_of(result)}; compiles in {seconds:.1f} s, a call takes {own:.4g} "
        f"instead of {eager:.4g} µs ({one.instead}), placebo "
        f"{_mean(result, 'placebo_ns') / 1e3:+.2g} µs"
    )


def words_of(result: Result) -> str:
    """Return when it pays, in words."""
    if result.calls is not None:
        mean, low, high = result.calls
        return f"after {mean:.3g} calls [{low or 0.0:.3g}, {high or 0.0:.3g}]"
    words = {Pays.NEVER: "never: it is not faster"}
    return words.get(result.verdict, f"{result.verdict}: {result.reason}")


def _mean(result: Result, name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in result.seen)


def as_evidence(results: Sequence[Result], rules: Rules, made: Made) -> Evidence:
    """Return the table."""
    return Evidence(
        name="break_even",
        title="After how many calls a compiled form has paid",
        about=(
            "Seconds of the first call in a fresh process with an empty cache, over what every "
            "further call gains against what a caller gets without a compiler: "
            f"{rules.processes} processes of {rules.blocks} interleaved blocks, one thread. The "
            "interval takes the worse ends of both 95 % intervals. Placebo: what the same call "
            "gains against itself."
        ),
        made=made,
        columns=("variant", "case", "direction", "instead of", "compiles, s", "call before, µs",
                 "call after, µs", "gain, µs", "placebo, µs", "breaks even"),
        rows=tuple(
            (
                one.subject.variant, one.subject.case, one.subject.direction, one.subject.instead,
                *_figures(one), words_of(one),
            )
            for one in results
        ),
    )  # fmt: skip


def _figures(result: Result) -> tuple[str, ...]:
    if not result.seen:
        return ("",) * 5
    gain = Span.of([one.gain_ns / 1e3 for one in result.seen])
    interval = "" if gain.low is None else f" [{gain.low:.4g}, {gain.high:.4g}]"
    return (
        f"{_mean(result, 'compile_ns') / 1e9:.3g}", f"{_mean(result, 'eager_ns') / 1e3:.4g}",
        f"{_mean(result, 'compiled_ns') / 1e3:.4g}", f"{gain.mean:.4g}{interval}",
        f"{_mean(result, 'placebo_ns') / 1e3:.2g}",
    )  # fmt: skip
