"""The command `bench`: laws, proofs, samples, then verdicts, pytest-benchmark and the page."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import clock, history
from harness.benchmark import Benchmark, describe_run
from harness.budget import Budget
from harness.conclusion import conclude
from harness.machine import choose_device, describe_machine
from harness.options import Options, occupied
from harness.plan import DIRECTIONS, Selection, make_plan
from harness.results import Recorder, ResultsError, load_run
from harness.table import Table, load_table
from harness.terminal import Progress, write_lines

QUICK_BUDGET_S = 280.0
INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench`."""
    several: dict[str, Any] = {"action": "append", "default": []}
    add = parser.add_argument
    add("--variant", **several, help="only this variant")
    add("--implementation", **several, help="only this one, beside the baseline")
    add("--case", **several, metavar="NAME|DESCRIPTOR", help="instead of the quick cases")
    add("--direction", choices=(*DIRECTIONS, "both"), default="both",
        help="backward is forward and backward")  # fmt: skip
    add("--dtype", **several, help="instead of the cases' own, float32")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--threads", action="append", type=_positive, default=[], metavar="T",
        help="how many, 1 if not given; given several times, every cell is timed with each")  # fmt: skip
    add("--processes", type=_positive, default=5, metavar="P", help="fresh processes per cell")
    add("--blocks", type=_positive, default=20, metavar="B", help="samples per cell and process")
    add("--baseline", **several, metavar="[VARIANT=]IMPLEMENTATION", help="instead of references")
    add("--budget-s", type=_seconds, metavar="S",
        help=f"seconds for everything (quick: {QUICK_BUDGET_S:.0f}, with --full: no limit)")  # fmt: skip
    add("--full", action="store_true", help="all cases, and compiled forms")
    add("--laws", choices=("none", "quick", "dev", "ci", "deep"), default="quick",
        help="how hard to search for counterexamples first")  # fmt: skip
    add("--seed", type=int, default=0, help="of the order of samples")
    add("--resume", metavar="RUN", help="go on with a run that was ended early")
    add(
        "--against", metavar="RUN", help="an earlier run: its commit is timed again beside this one"
    )
    add("--plugin", **several, metavar="FILE|MODULE", help="more implementations")
    add("--out", type=Path, default=Path("results"), metavar="DIR", help="where results go")
    add("--json", action="store_true", help="comparisons as JSON instead of tables")


def run(args: argparse.Namespace, table: Table) -> int:
    """Run the benchmark; return 0, 1 where something is refuted, 130 when interrupted.

    Raises:
        CaseError, UnknownName: bad input.
        ResultsError: a folder that cannot be written or read.
    """
    progress, code = Progress(), 0
    past = history.load_past(args.against, args.out) if args.against else None
    with contextlib.ExitStack() as stack:
        if args.resume:
            if (folder := _folder(args)).exists():
                stack.enter_context(occupied(folder))
            bench = _resume(args, table, progress, folder)
        else:
            bench = _start(args, table, progress)
            stack.enter_context(occupied(bench.folder))
        whole = Budget(bench.options.budget_s, args.began_s, args.start_s)
        measuring = whole.without_closing()
        try:
            with progress:
                bench.measure(whole.without_closing(1 - history.SHARE) if past else measuring)
            if past:
                end_s = measuring.deadline_s
                code = history.against(bench.table, past, bench.folder, end_s, progress.say)
        except KeyboardInterrupt:
            bench.note("interrupted: what was measured is kept")
            code = INTERRUPTED
    if code == INTERRUPTED:
        write_lines([f"interrupted; go on with: python3 -m harness bench --resume {bench.folder}"])
        return code
    return max(code, conclude(bench.folder, as_json=args.json, deadline_s=whole.deadline_s))


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} must be a whole number of at least 1")
    return int(word)


def _seconds(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(word)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"{word!r} must be a number of seconds above 0")


# -- starting ----------------------------------------------------------------------------------


def _start(args: argparse.Namespace, table: Table, progress: Progress) -> Benchmark:
    device = choose_device(args.device)
    selection = Selection(
        variants=tuple(args.variant),
        implementations=tuple(args.implementation),
        cases=tuple(args.case),
        directions=DIRECTIONS if args.direction == "both" else (args.direction,),
        dtypes=tuple(args.dtype),
        baselines=tuple(args.baseline),
        full=args.full,
        device=device,
        threads=tuple(dict.fromkeys(args.threads)) or (1,),
    )
    options = Options(
        selection=selection, processes=args.processes, blocks=args.blocks, seed=args.seed,
        laws=args.laws, plugins=tuple(args.plugin), budget_s=_budget(args),
    )  # fmt: skip
    plan = make_plan(table, selection)
    notes = [*table.failures, *plan.notes]
    if args.device == "auto" and device == "cpu":
        notes.append("no CUDA device: CPU")
    names = dict.fromkeys(cell.variant for cell in plan.cells)
    description = describe_run(
        table, {name: plan.baselines[name] for name in names} or plan.baselines,
        argv=_command(args), device=device, threads=selection.threads[0], seed=args.seed,
        processes=args.processes, blocks=args.blocks, notes=notes, settings=options.words(),
    )  # fmt: skip
    bench = Benchmark(args.out / description.id, description, options, plan, table, progress)
    bench.write()
    for note in notes:
        progress.say(note)
    return bench


def _folder(args: argparse.Namespace) -> Path:
    inside: Path = args.out / args.resume
    return inside if inside.exists() and not Path(args.resume).exists() else Path(args.resume)


def _resume(
    args: argparse.Namespace, table: Table, progress: Progress, folder: Path
) -> Benchmark:  # fmt: skip
    Recorder(folder).mend()
    loaded = load_run(folder)
    options = Options.from_words(loaded.run.settings, folder)
    if args.budget_s is not None:
        options = replace(options, budget_s=args.budget_s)
    if set(options.plugins) != set(args.plugin):
        table = load_table(options.plugins)
    choose_device(loaded.run.device)
    here = describe_machine()
    if (here.processor, here.gpu) != (loaded.run.machine.processor, loaded.run.machine.gpu):
        raise ResultsError(f"{folder}: cannot be resumed: it was taken on another machine")
    bench = Benchmark(
        folder, loaded.run, options, make_plan(table, options.selection), table, progress,
        before=loaded,
    )  # fmt: skip
    bench.note(f"resumed at {clock.utc_now().isoformat(timespec='seconds')}")
    return bench


def _budget(args: argparse.Namespace) -> float | None:
    if args.budget_s is not None:
        return float(args.budget_s)
    return None if args.full else QUICK_BUDGET_S


def _command(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the shortest command line that measures the same again, wherever results then go."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["python3", "-m", "harness", "bench"]
    for name, default in vars(parser.parse_args([])).items():
        value, option = getattr(args, name), "--" + name.replace("_", "-")
        if value == default or name == "out":
            continue
        values = value if isinstance(value, list) else [value]
        words += [option] if value is True else [w for v in values for w in (option, str(v))]
    return tuple(words)
