"""The largest error over its bound, kept per machine, implementation and dtype: it may not grow.

An implementation that uses more of its bound than it did still agrees with the oracle, but rounds
more: a fault that the bound hides shows here first.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from harness.effort import PROFILES
from harness.judge import pairs
from harness.results import Outcome, ResultsError, Verdict
from harness.search import search
from harness.table import Table
from harness.terminal import write_lines

PATH = Path(__file__).parents[1] / "properties" / "ratchet.json"
# The laws that compare with the oracle: values and gradients.
AGREEMENT = ("G1", "G1b")
GROWTH = 1.25
# A maximum over few cases depends on which were drawn, and Hypothesis draws others where other
# modules are loaded: what is kept is the maximum over many more than are compared with it.
KEPT_ROUNDS = 20
# Units of a processor that sum low precision in their own order.
LOW_PRECISION_UNITS = ("avx512_bf16", "amx_tile", "amx_fp16")

Cells = Mapping[str, Mapping[str, float]]
"""`variant/implementation` to dtype to the largest error over its bound."""


def backend() -> str:
    """Return what decides how this machine's library rounds, e.g. `cpu AVX512 avx512_bf16`."""
    units = [
        name for name in LOW_PRECISION_UNITS if getattr(torch.cpu, f"_is_{name}_supported", bool)()
    ]
    return " ".join(["cpu", torch.backends.cpu.get_cpu_capability(), *units])


def measure(table: Table, variants: Sequence[str] = (), *, rounds: int = 1) -> Cells:
    """Return the largest errors over their bounds in `rounds` times the cases of profile `ci`."""
    found: dict[str, dict[str, float]] = {}
    profiles = [replace(PROFILES["ci"], seed=seed) for seed in range(rounds)]
    judged = pairs(table, variants, (), AGREEMENT)
    for (law, variant, implementation), profile in product(judged, profiles):
        finding = search(law, variant, implementation, profile, variants=table.variants)
        if finding.outcome is Outcome.HOLDS:
            cell = found.setdefault(f"{variant.name}/{implementation.name}", {})
            for dtype, value in finding.tightness.items():
                cell[dtype] = max(cell.get(dtype, 0.0), round(value, 3))
    return found


def grown(measured: Cells, kept: Cells) -> list[str]:
    """Return a line for everything that uses more than `GROWTH` times what it did of its bound."""
    return [
        f"{cell} {dtype}: error over bound {value:.3g}, was {kept[cell][dtype]:.3g}"
        for cell, dtype, value in _entries(measured)
        if dtype in kept.get(cell, {}) and value > GROWTH * kept[cell][dtype]
    ]


def new(measured: Cells, kept: Cells) -> list[str]:
    """Return a line for everything that is not kept yet."""
    return [
        f"{cell} {dtype}: error over bound {value:.3g}, not kept yet"
        for cell, dtype, value in _entries(measured)
        if dtype not in kept.get(cell, {})
    ]


def tightness(cells: Cells) -> str:
    """Return one line: the largest error over its bound by dtype."""
    most: dict[str, float] = {}
    for _, dtype, value in _entries(cells):
        most[dtype] = max(most.get(dtype, 0.0), value)
    return "error over bound: " + ", ".join(f"{d} {v:.2f}" for d, v in sorted(most.items()))


def summary(rows: Sequence[Verdict]) -> str:
    """Return one line: the largest error over its bound, and the vacuous cases, by dtype."""
    cells = {f"{r.law} {r.variant}/{r.implementation}": r.tightness for r in rows}
    executed: Counter[str] = Counter()
    vacuous: Counter[str] = Counter()
    for row in rows:
        vacuous.update(row.vacuous)
        for stratum, count in row.counts.items():
            executed[stratum.split()[0]] += count
    shares = ", ".join(f"{d} {vacuous[d] / n:.0%}" for d, n in sorted(executed.items()) if n)
    return f"{tightness(cells)}; vacuous cases: {shares}"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `python3 -m harness ratchet`."""
    command.add_argument("--variant", action="append", default=[], metavar="NAME")
    command.add_argument("--write", action="store_true", help="keep what is measured")


def run(options: argparse.Namespace, table: Table) -> int:
    """Compare what is measured with what is kept, or keep it; return 1 where something grew."""
    torch.set_num_threads(1)
    rounds = KEPT_ROUNDS if options.write else 1
    measured = measure(table, options.variant, rounds=rounds)
    kept = load().get(backend(), {})
    worse = grown(measured, kept)
    lines = [*worse, *new(measured, kept), f"{backend()}: {tightness(measured)}"]
    if options.write:
        write(measured)
        lines.append(f"kept in {PATH}")
    write_lines(lines)
    return int(bool(worse) and not options.write)


def _entries(cells: Cells) -> Iterable[tuple[str, str, float]]:
    return (
        (cell, dtype, value)
        for cell, dtypes in sorted(cells.items())
        for dtype, value in sorted(dtypes.items())
    )


def load(path: Path = PATH) -> Mapping[str, Cells]:
    """Read what is kept, by backend; nothing where there is no file.

    Raises:
        ResultsError: the file is no mapping of numbers.
    """
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        entries = [entry for cells in data.values() for entry in _entries(cells)]
    except (OSError, ValueError, AttributeError) as error:
        raise ResultsError(f"{path}: is no ratchet: {error}") from error
    for cell, dtype, value in entries:
        if not isinstance(value, int | float):
            raise ResultsError(f"{path}: {cell} {dtype}={value!r} must be a number")
    return data  # type: ignore[no-any-return]


def write(measured: Cells, path: Path = PATH) -> None:
    """Keep `measured` for this backend, in place of what was kept of the same cells."""
    kept = dict(load(path))
    kept[backend()] = {**kept.get(backend(), {}), **measured}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
