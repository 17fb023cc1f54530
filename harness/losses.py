"""The performance law: what the table chooses is never slower than the reference by more than 5 %.

Hypothesis draws layers, the clock judges. A loss counts when a second run in fresh processes
repeats it with its whole interval; then it walks down to the smallest case that still shows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import hypothesis
import torch
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from harness import hunt
from harness.case import CaseError, ConvCase
from harness.comparison import Comparison
from harness.contest import Entry, Rules, compete, real, runner
from harness.evidence import EVIDENCE, Evidence, Made, load_evidence
from harness.gate import cell_for, unproved
from harness.hunt import CONFIRM, SCREEN
from harness.plan import Cell
from harness.proof import Call
from harness.selection import fastest
from harness.strategies import cases
from harness.table import Table, load_table
from harness.tensors import make_tensors
from harness.terminal import write_lines
from harness.variant import Kind, Variant

TOLERATED = 1.05
# Layers of up to some ten milliseconds: what one sample takes bounds how many are looked at.
MOST_MACS = 10**8
CHANNELS, SPARE, BATCHES = (1, 1, 4, 8, 16, 32), (0, 4, 12, 28, 60), (1, 1, 1, 4)
COLUMNS = (
    "variant", "implementation", "direction", "ratio", "from", "to", "smallest case", "replay",
    "since",
)  # fmt: skip


class Suspect(NamedTuple):
    """A case on which what the table chooses may lose."""

    variant: str
    direction: str
    case: str

    @property
    def entry(self) -> Entry:
        """The contest that tells."""
        return Entry(f"{__name__}:contest", " ".join(self))


class Loss(NamedTuple):
    """A confirmed loss, shrunk."""

    suspect: Suspect
    implementation: str
    row: Comparison


@st.composite
def layers(draw: st.DrawFn, variant: Variant) -> ConvCase:
    """Draw a case of the size of a layer: channels and images larger than laws need."""
    case = draw(cases(variant, ("float32",)))
    times, spare = draw(st.sampled_from(CHANNELS)), draw(st.sampled_from(SPARE))
    case = replace(
        case, n=draw(st.sampled_from(BATCHES)), c_in=times * case.c_in, c_out=times * case.c_out,
        sources=tuple(times * count for count in case.sources), fill="real", layout="contiguous",
        in_size=tuple(size + spare for size in case.in_size),
    )  # fmt: skip
    hypothesis.assume(case.macs <= MOST_MACS)
    return case


def suspects(variant: Variant, seed: int, count: int = hunt.AT_ONCE) -> list[Suspect]:
    """Return so many cases where the table chooses something else than the reference."""
    found: list[Suspect] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=4 * count, database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(layers(variant), st.sampled_from(("forward", "backward")))
    def look(case: ConvCase, direction: str) -> None:
        if len(found) < count and _chosen(variant, case):
            found.append(Suspect(variant.name, direction, str(case)))

    look()
    return found


def _chosen(variant: Variant, case: ConvCase) -> str:
    """Return the implementation that the table chooses, empty where that is the reference."""
    try:
        variant.check_case(case)
        chosen = fastest(variant, case)
    except CaseError:
        return ""
    return "" if chosen.kind is Kind.REFERENCE else chosen.name


def contest(words: str, device: str) -> dict[str, Callable[[], Any]]:
    """Make the reference and what the table chooses; `words` are `variant direction case`."""
    name, direction, line = words.split(" ", 2)
    variant, case = load_table().variant(name), ConvCase.parse(line)
    torch.set_grad_enabled(direction == "backward")
    tensors = make_tensors(variant, case, device)
    found = {}
    for implementation in (variant.reference, fastest(variant, case, device)):
        call = Call(variant, implementation, case, direction)
        found[implementation.name] = runner(call, tensors)
    return found


def cells_of(table: Table, suspect: Suspect) -> list[Cell]:
    """Return what is timed: the reference, and what the table chooses."""
    name, direction, line = suspect
    variant = table.variant(name)
    both = variant.reference.name, _chosen(variant, ConvCase.parse(line))
    return [cell_for(table, name, one, line, direction) for one in both if one]


# -- judging -----------------------------------------------------------------------------------


def judge(some: Sequence[Suspect], rules: Rules, seed: int) -> list[Comparison]:
    """Return the row of each suspect."""
    rows = {row.case: row for row in real(compete([one.entry for one in some], rules, seed))}
    return [rows[one.entry.case] for one in some]


def _loses(row: Comparison) -> bool:
    return row.ratio_low is not None and row.ratio_low > TOLERATED


def confirmed(
    table: Table, suspect: Suspect, seed: int, deadline_s: float, wrong: dict[Suspect, str]
) -> Loss | None:
    """Judge a suspect again in fresh processes; shrink what loses there, and judge that, too.

    What is not proved on the way is added to `wrong`.
    """
    variant = table.variant(suspect.variant)

    def judged(case: ConvCase, rules: Rules, number: int) -> Comparison | None:
        candidate = suspect._replace(case=str(case))
        if not _chosen(variant, case):
            return None
        if bad := unproved({candidate: cells_of(table, candidate)}):
            wrong.update(bad)
            return None
        return judge([candidate], rules, number)[0]

    case = ConvCase.parse(suspect.case)
    found = hunt.confirmed(case, variant, judged, _loses, seed, deadline_s)
    if found is None:
        return None
    least, row = found
    return Loss(suspect._replace(case=str(least)), _chosen(variant, least), row)


# -- the command -------------------------------------------------------------------------------


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the options of `losses`."""
    command.add_argument("--variant", action="append", default=[], help="only this variant")
    command.add_argument("--budget-s", type=float, default=600.0, metavar="S")
    command.add_argument("--seed", type=int, help="of the first round; by chance if not given")
    command.add_argument("--write", action="store_true", help="keep what was found as evidence")


def run(options: argparse.Namespace, table: Table) -> int:
    """Search for cases where the table chooses a loser; return 1 where there is one.

    Raises:
        UnknownName: there is no such variant.
    """
    variants = [table.variant(name) for name in options.variant or table.variants]
    names = {one.name for one in variants}

    kept = {one: row for one, row in _kept().items() if one.variant in names}
    mended = {}
    for one, row in kept.items():
        variant = table.variant(one.variant)
        if not _chosen(variant, ConvCase.parse(one.case)):
            since = f"the table takes {variant.reference.name}"
            mended[one] = (*row, since)
            write_lines([f"MENDED {' '.join(one)}: {since}"])

    def doubtful(some: Sequence[Suspect], seed: int) -> list[bool]:
        found = judge(some, SCREEN, seed)
        for one, row in zip(some, found, strict=True):
            if one in kept and (row.ratio or 0) <= TOLERATED:
                mended[one] = (*kept[one], f"takes {row.ratio or 0:.2f} times as long")
        return [(row.ratio or 0) > TOLERATED for row in found]

    return hunt.search(
        hunt.Hunt(
            command="losses", draw=suspects,
            kept=[one for one in kept if one not in mended],
            cells=partial(cells_of, table), doubtful=doubtful, confirm=partial(confirmed, table),
            line=line_of, named=" ".join,
            table=partial(as_evidence, mended=mended.values()),
        ),
        options, variants, EVIDENCE,
    )  # fmt: skip


def _kept() -> dict[Suspect, tuple[str | float, ...]]:
    """Return the rows of earlier searches, without what has become of them since."""
    for evidence in load_evidence(EVIDENCE):
        if evidence.name == "losses":
            columns = (evidence.column(name) for name in ("variant", "direction", "smallest case"))
            suspects = (Suspect(*map(str, words)) for words in zip(*columns, strict=True))
            rows = (row[: len(COLUMNS) - 1] for row in evidence.rows)
            return dict(zip(suspects, rows, strict=True))
    return {}


def line_of(loss: Loss) -> str:
    """Return the line of a terminal that shows a loss."""
    row, (variant, direction, case) = loss.row, loss.suspect
    return (
        f"LOSES {variant}/{loss.implementation} {direction}: {row.ratio:.2f} times the time of "
        f"{row.baseline} [{row.ratio_low:.2f}, {row.ratio_high:.2f}] on {case}"
    )


def replay_of(loss: Loss) -> str:
    """Return the command that times a loss again."""
    variant, direction, case = loss.suspect
    cell = f"--variant {variant} --implementation {loss.implementation} --direction {direction}"
    return f"python3 -m harness bench {cell} --case '{case}'"


def as_evidence(
    losses: Sequence[Loss], wrong: Mapping[Suspect, str], looked: int, seed: int, made: Made,
    mended: Collection[tuple[str | float, ...]] = (),
) -> Evidence:  # fmt: skip
    """Return the table of what was found; who is not proved has a row without a ratio.

    Rows of earlier searches follow as they were where the table has come to lose no more.
    """
    return Evidence(
        name="losses",
        title="Where the table chooses a loser",
        about=(
            f"{looked} layers drawn from seed {seed} on; what the table chooses took more than "
            f"{TOLERATED:.2f} times the time of the reference in {len(losses)}, and again in "
            f"a second run of {CONFIRM.processes} fresh processes, one thread; every one was made smaller as "
            "long as it stayed a loss and time was left. Everything was compared with the oracle "
            f"before it was timed; in {len(wrong)} it was not what the oracle says."
            + (f" {len(mended)} of earlier searches were mended since." if mended else "")
        ),
        made=made,
        columns=COLUMNS,
        rows=tuple(
            (one.variant, "", one.direction, hunt.UNPROVED, "", "", one.case, reason, "")
            for one, reason in wrong.items()
        ) + tuple(
            (
                loss.suspect.variant, loss.implementation, loss.suspect.direction,
                loss.row.ratio or 0.0, loss.row.ratio_low or 0.0, loss.row.ratio_high or 0.0,
                loss.suspect.case, replay_of(loss), "",
            )
            for loss in losses
        ) + tuple(mended),
    )  # fmt: skip
