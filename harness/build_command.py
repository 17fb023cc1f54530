"""`python3 -m harness build`: make what implementations need on this machine, once."""

from __future__ import annotations

import argparse

from harness import clock
from harness.table import Table
from harness.terminal import write_lines
from harness.variant import BuildError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `build`: none."""
    parser.description = __doc__


def run(_: argparse.Namespace, table: Table) -> int:
    """Make what is not there yet and say where it is; return 1 where something cannot be made."""
    forms = (i for v in table.variants.values() for i in v.implementations)
    builds = {i.build.what: i.build for i in forms if i.build}
    failed = False
    for build in builds.values():
        start, absent = clock.monotonic_s(), build.missing()
        try:
            made = build.make()
        except BuildError as error:
            write_lines([f"{build.what}: {error}"])
            failed = True
            continue
        took = f" in {clock.monotonic_s() - start:.0f} s" if absent else ", as before"
        write_lines([f"{build.what}: {made}{took}"])
    return int(failed)
