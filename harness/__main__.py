"""The command line: `python3 -m harness list | check | bench | claims | report | profile`."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import clock
from harness.case import CaseError
from harness.records import ResultsError
from harness.table import Table, UnknownName, load_table

# A fresh process that times imports this module first: what only commands need is imported there.
COMMANDS = (
    ("bench", "bench_command", "check, time, write the page"),
    ("build", "build_command", "make what implementations need on this machine"),
    ("profile", "profile", "traces and operator tables"),
    ("claims", "claim_command", "judge what the documents claim"),
    ("choose", "choose_command", "let calls take what won a benchmark run"),
    ("break-even", "break_even_command", "after how many calls a compiled form has paid"),
    ("calibrate", "calibration", "how far the clock can be trusted"),
    ("crossover", "crossover", "from which density on a mask-aware implementation pays"),
    ("goals", "goal_command", "what the operations cost against what they may cost"),
    ("growth", "growth_command", "how time grows with a size, against what is declared"),
    ("losses", "losses", "cases where the table chooses what is slower than the reference"),
    ("mutants", "kills", "how many cases every law needs to refute every mutant"),
    ("rates", "rates", "cases a minute of the law engine"),
    ("ratchet", "ratchet", "how much of their bounds the errors use, against what is kept"),
    ("soak", "soak", "laws round after round: any refutation is a false alarm"),
)
"""Commands with a module of their own: the word, the module, what it is for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 good, 1 refuted, 2 bad input, 130 interrupted."""
    # a command line's process is there for the command alone: a budget counts its start, too
    age_s = clock.age_s() if arguments is None else 0.0
    began = argparse.Namespace(began_s=clock.monotonic_s() - age_s, start_s=0.0)
    options = _parser().parse_args(arguments, began)
    try:
        table = load_table(getattr(options, "plugin", []))
        if age_s:
            options.start_s = clock.monotonic_s() - options.began_s
        for failure in table.failures:
            print(failure, file=sys.stderr)
        code: int = options.run(options, table)
    except (CaseError, UnknownName, ResultsError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; everything measured so far is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m harness", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="variants, implementations and laws")
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="for machines")
    shape.add_argument("--markdown", action="store_true", help="the table of the README")
    _add_plugin(command)
    command.set_defaults(run=_list)

    command = commands.add_parser("check", help="replay one case")
    command.add_argument("cell", metavar="'VARIANT/IMPLEMENTATION[/LAW] CASE'")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    _add_plugin(command)
    command.set_defaults(run=_check)

    for name, where, purpose in COMMANDS:
        command = commands.add_parser(name, help=purpose)
        module = importlib.import_module(f"harness.{where}")
        module.add_arguments(command)
        command.set_defaults(run=module.run)

    command = commands.add_parser("report", help="one HTML file from a results folder")
    command.add_argument(
        "folder", metavar="RUN", type=Path, help="a folder of results/, or its name"
    )
    command.add_argument("-o", "--output", type=Path, metavar="FILE")
    command.set_defaults(run=_report)
    return parser


def _add_plugin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plugin", action="append", default=[], metavar="FILE|MODULE", help="more implementations"
    )


def _list(options: argparse.Namespace, table: Table) -> int:
    from harness.catalogue import describe, markdown, text

    if options.json:
        print(json.dumps(describe(table), indent=1))
    else:
        print(markdown(table) if options.markdown else text(table))
    return 0


def _check(options: argparse.Namespace, table: Table) -> int:
    from harness.judge import meets
    from harness.machine import choose_device
    from harness.results import Outcome
    from harness.search import replay

    path, _, line = options.cell.strip().partition(" ")
    names = path.split("/")
    if len(names) not in (2, 3) or not line.strip():
        raise CaseError(
            f"{options.cell!r} must be 'VARIANT/IMPLEMENTATION[/LAW] CASE', for example "
            "'partial/box_filter n1 c1>1 i3 k2'"
        )
    variant = table.variant(names[0])
    implementation = table.implementation(variant, names[1])
    _, case = table.case(variant, line)
    laws = [law for law in table.laws_of(variant) if meets(law, implementation)]
    if len(names) == 3:
        law = table.law(names[2])
        lacking = ", ".join(sorted(t.name for t in law.requires - variant.traits))
        if lacking:
            raise CaseError(f"law {law.id} does not apply to {variant.name}, which lacks {lacking}")
        if law not in laws:
            raise CaseError(
                f"law {law.id} does not apply to {names[0]}/{names[1]}: "
                + (
                    "it has no layer"
                    if law.of_layers
                    else f"it is no law of {implementation.kind}s"
                )
            )
        laws = [law]
    device = choose_device(options.device)
    outcomes = []
    for law in laws:
        finding = replay(law, variant, implementation, case, device=device, variants=table.variants)
        outcomes.append(finding.outcome)
        note = f"  ({finding.screen})" if finding.outcome is Outcome.UNSUPPORTED else ""
        if finding.outcome is Outcome.HOLDS and finding.tier != "T0":
            note = f"  (error {finding.error_over_bound:.2g} of the bound)"
        tried = law.within(case) if law.within else case
        if finding.outcome is Outcome.HOLDS and tried not in {None, case}:
            note += f"  (moved into its domain, {law.domain}: {tried})"
        print(f"{finding.outcome:<11} {law.id:<4} {law.name}{note}")
        if finding.outcome in (Outcome.REFUTED, Outcome.CRASHED, Outcome.MISTRUSTED):
            print(f"\n{finding.screen}\n")
    return int(any(o in (Outcome.REFUTED, Outcome.CRASHED) for o in outcomes))


def _report(options: argparse.Namespace, table: Table) -> int:
    del table
    folder = options.folder
    if not folder.exists() and (Path("results") / folder).exists():
        folder = Path("results") / folder
    page = importlib.import_module("reports.page")
    target = options.output or Path("reports/out") / f"{folder.name}.html"
    try:
        path = page.write_page(folder, target)
        if not options.output:
            importlib.import_module("reports.index").write_index(target.parent)
    except OSError as error:
        raise ResultsError(f"{target}: cannot be written: {error.strerror}") from error
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    # who is told to end, keeps what was measured as who is interrupted does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
