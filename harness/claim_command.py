"""`python3 -m harness claims`: judge the claims, print them, and on request keep the table."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from harness.claim import Claim, Judged, as_evidence, judge, load_claims, stored_rows
from harness.evidence import Evidence, load_evidence, markdown
from harness.results import ResultsError
from harness.table import Table, UnknownName
from harness.terminal import write_lines

ROOT = Path(__file__).parent.parent
EVIDENCE, PAGE = ROOT / "properties/evidence", ROOT / "docs/claims.md"
COMMAND = "python3 -m harness claims --write"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    command.add_argument("claims", nargs="*", metavar="CLAIM", help="numbers, e.g. 003.2 or 003")
    command.add_argument("--timed", action="store_true", help="decide those about time, too")
    command.add_argument(
        "--write", action="store_true",
        help="judge all and keep the table in properties/evidence and docs; --timed still means "
        "those that are named",
    )  # fmt: skip


def run(options: argparse.Namespace, table: Table) -> int:
    """Judge and print; return 1 where a verdict is another than the expected one."""
    del table
    claims = load_claims()
    chosen = _chosen(claims, options.claims)
    stored = stored_rows(load_evidence(EVIDENCE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    judged = []
    try:
        for claim in claims.values() if options.write else chosen:
            judged.append(judge(claim, timed=options.timed and claim in chosen, stored=stored))
            write_lines(screen(judged[-1]))
    finally:
        torch.set_num_threads(threads)
    wrong = sum(one.differs for one in judged)
    write_lines([f"{len(judged)} claims, {wrong} with another verdict than expected"])
    if options.write:
        evidence = as_evidence(judged, COMMAND)
        write_lines([f"written: {evidence.save(EVIDENCE)}", f"written: {_write_page(evidence)}"])
    return int(wrong > 0)


def screen(one: Judged) -> list[str]:
    """Return the lines that show one claim at a terminal."""
    lines = [f"{one.claim.id:<7}{one.verdict}", f"       {one.claim.text}", f"       {one.witness}"]
    if one.differs:
        lines.append(f"       expected: {one.claim.expected}")
    return [*lines, ""]


def _chosen(claims: Mapping[str, Claim], words: Sequence[str]) -> list[Claim]:
    """Return the claims that are named by their number or that of their document; else all."""
    for word in words:
        if not any(word in {name, name.partition(".")[0]} for name in claims):
            raise UnknownName("claim", word, claims)
    named = set(words)
    return [
        claim for name, claim in claims.items()
        if not named or named & {name, name.partition(".")[0]}
    ]  # fmt: skip


def _write_page(evidence: Evidence) -> Path:
    try:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(markdown(evidence), encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{PAGE}: cannot be written: {error.strerror}") from error
    return PAGE
