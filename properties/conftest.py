"""Which laws meet which implementations, and the matrix of their verdicts.

Where pytest-xdist runs the tests in several workers, one that dies costs the test it was at: the
verdict names the case, and a new worker goes on.
"""

import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import hypothesis
import pytest
import torch

from harness import flight, ratchet
from harness.benchmark import describe_run
from harness.corpus import load_corpus
from harness.effort import COSTLY, PROFILES
from harness.judge import as_verdict, lost, pairs
from harness.known import load_known
from harness.law import Law
from harness.machine import choose_device
from harness.matrix import render_coverage, render_matrix
from harness.mutant import Mutant
from harness.results import Outcome, Recorder, ResultsError, Verdict
from harness.table import Table, UnknownName, load_table
from harness.variant import Implementation, Variant

ROOT = Path(__file__).parent
VERDICTS = pytest.StashKey[list[Verdict]]()
TABLE = pytest.StashKey[Table]()
CELLS = pytest.StashKey[dict[str, tuple[Law, Variant, Implementation]]]()
SEED = pytest.StashKey[int]()
FLIGHTS = pytest.StashKey[tempfile.TemporaryDirectory]()
SELECTING = ("variant", "implementation", "law")
PROPERTY = "verdict"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): tests that share a worker's caches")
    config.addinivalue_line("markers", "thorough: left out of profile dev, which answers quickly")
    config.stash[VERDICTS] = []
    config.stash[TABLE] = table = load_table(config.getoption("--plugin"))
    chosen = [config.getoption(f"--{name}") for name in SELECTING]
    try:
        cells = list(pairs(table, *chosen))
    except UnknownName as error:
        raise pytest.UsageError("\n".join((str(error), *table.failures))) from None
    if not cells:
        raise pytest.UsageError("no selected law applies to a selected implementation")
    config.stash[CELLS] = {f"{v.name}-{i.name}-{law.id}-{law.name}": (law, v, i)
                           for law, v, i in cells}  # fmt: skip
    config.stash[SEED] = _seed(config)
    config.pluginmanager.register(Ledger(config))
    if not hasattr(config, "workerinput"):
        config.stash[FLIGHTS] = folder = tempfile.TemporaryDirectory(prefix="convharness-")
        os.environ[flight.FOLDER] = folder.name


class Ledger:
    """Keeps the verdicts that tests hand over, from whichever process they come."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the verdict out of a test's report."""
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == PROPERTY:
                row = json.loads(value)
                verdict = Verdict(**{**row, "status": Outcome(row["status"])})
                self.config.stash[VERDICTS].append(verdict)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Name the case at which a worker died, or was ended for giving no answer."""
        name = crashitem.partition("[")[2].rpartition("]")[0]
        cell = self.config.stash[CELLS].get(name)
        if cell is None:
            return
        tried = flight.last(self.config.stash[FLIGHTS].name, report.node.gateway.id)
        finding = lost("the worker was lost: it crashed, or gave no answer in time", tried)
        self.config.stash[VERDICTS].append(as_verdict("", *cell, finding))
        report.longrepr = f"{report.longrepr}\n{finding.screen}"


def pytest_unconfigure(config: pytest.Config) -> None:
    if FLIGHTS in config.stash:
        config.stash[FLIGHTS].cleanup()


def _profile_name(config: pytest.Config) -> str:
    # Hypothesis loads the profile of its option later than this is asked first
    given = config.getoption("--hypothesis-profile", None)
    name = given or hypothesis.settings.get_current_profile_name()
    # of one implementation all is known in the time that a glance at all of them takes
    usual = "ci" if config.getoption("--implementation") else "dev"
    return name if name in PROFILES else usual


def _seed(config: pytest.Config) -> int:
    """Return the seed of this run, the same in all of its workers."""
    if hasattr(config, "workerinput"):
        return config.workerinput["convharness_seed"]
    given = config.getoption("--hypothesis-seed", None)
    if given and given.isdigit():
        return int(given)
    fixed = PROFILES[_profile_name(config)].seed
    return random.SystemRandom().randrange(2**32) if fixed is None else fixed


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell a worker of pytest-xdist what the run has decided."""
    node.workerinput["convharness_seed"] = node.config.stash[SEED]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what was not asked for, and what takes too long where an answer must be quick."""
    _keep(config, items, lambda item: _is_quick(config, item))
    _keep_selected(config, items)


def _keep(
    config: pytest.Config, items: list[pytest.Item], wanted: Callable[[pytest.Item], bool]
) -> None:  # fmt: skip
    left_out = [item for item in items if not wanted(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if wanted(item)]


def _is_quick(config: pytest.Config, item: pytest.Item) -> bool:
    """Whether a profile that is not thorough runs `item`: not a costly law, unless it is named."""
    named = any(item.path.name in word for word in config.args) or config.getoption("--law")
    if PROFILES[_profile_name(config)].thorough or named:
        return True
    cell = item.callspec.params.get("cell") if hasattr(item, "callspec") else None
    costly = cell is not None and cell[0].share < COSTLY
    return not costly and item.get_closest_marker("thorough") is None


def _keep_selected(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whoever selects wants what is selected, not the tests of everything beside it."""
    chosen = {name: set(config.getoption(f"--{name}")) for name in SELECTING}
    if not any(chosen.values()):
        return
    only_variants = not chosen["implementation"] and not chosen["law"]

    def is_chosen(item: pytest.Item) -> bool:
        call = getattr(item, "callspec", None)
        if call is None or not item.path.is_relative_to(ROOT):
            return not item.path.is_relative_to(ROOT)
        if "cell" in call.params:
            return True
        words = {getattr(p, "variant", getattr(p, "name", p)) for p in call.params.values()
                 if isinstance(p, str | Mutant | Variant)}  # fmt: skip
        return only_variants and not words.isdisjoint(chosen["variant"])

    _keep(config, items, is_chosen)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" not in metafunc.fixturenames:
        return
    cells = metafunc.config.stash[CELLS]
    # one law over one variant: what the oracle says of a case is asked once
    marked = [
        pytest.param(cell, marks=pytest.mark.xdist_group(f"{cell[1].name}-{cell[0].id}"), id=name)
        for name, cell in cells.items()
    ]
    metafunc.parametrize("cell", marked)


@pytest.fixture(scope="session")
def table(request):
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def every_cell(table):
    return list(pairs(table))


@pytest.fixture(scope="session")
def device(request):
    return choose_device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def profile_name(request):
    return _profile_name(request.config)


@pytest.fixture(scope="session")
def profile(request, profile_name):
    return replace(PROFILES[profile_name], seed=request.config.stash[SEED])


@pytest.fixture(scope="session")
def corpus():
    return load_corpus(ROOT / "corpus")


@pytest.fixture(scope="session")
def known(request):
    return load_known(request.config.getoption("--known") or ROOT / "known_failures.json")


@pytest.fixture
def report_verdict(request):
    """Hand a verdict to the process that writes the matrix."""

    def report(row: Verdict) -> None:
        request.node.user_properties.append((PROPERTY, json.dumps(asdict(row))))

    return report


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    before = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
    yield
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()) == before


def _key(law: Law, variant: Variant, implementation: Implementation) -> tuple[str, str, str]:
    return variant.name, law.id, implementation.name


def _record(config: pytest.Config, rows: list[Verdict]) -> Path:
    """Write the verdicts down as a run of their own."""
    table = config.stash[TABLE]
    names = dict.fromkeys(row.variant for row in rows)
    run = describe_run(
        table, {name: table.variant(name).reference.name for name in names},
        argv=("python3", "-m", "pytest", *config.invocation_params.args),
        device=choose_device(config.getoption("--device")), threads=torch.get_num_threads(),
        seed=config.stash[SEED], notes=table.failures,
    )  # fmt: skip
    recorder = Recorder(config.rootpath / "results" / run.id)
    recorder.write_run(run)
    for row in rows:
        recorder.add(replace(row, run_id=run.id))
    return recorder.folder


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    place = {_key(*cell): number for number, cell in enumerate(config.stash[CELLS].values())}
    rows = sorted(
        config.stash[VERDICTS],
        key=lambda row: place.get((row.variant, row.law, row.implementation), len(place)),
    )
    for failure in config.stash[TABLE].failures:
        terminalreporter.write_line(failure, yellow=True)
    if not PROFILES[name := _profile_name(config)].thorough:
        terminalreporter.write_line(
            f"profile {name}: costly laws and what takes seconds are left out; "
            "everything: --hypothesis-profile ci"
        )
    if rows:
        terminalreporter.section("law x implementation: cases executed")
        for line in (*render_matrix(rows), *render_coverage(rows)):
            terminalreporter.write_line(line)
        terminalreporter.write_line(ratchet.summary(rows))
        seed = config.stash[SEED]
        terminalreporter.write_line(f"seed {seed}; the same cases again: --hypothesis-seed={seed}")
        try:
            terminalreporter.write_line(f"results: {_record(config, rows)}")
        except ResultsError as error:
            terminalreporter.write_line(str(error), red=True)
