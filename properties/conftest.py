"""Which laws meet which implementations, and the matrix of their verdicts."""

import random
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import torch

from harness.benchmark import describe_run
from harness.corpus import load_corpus
from harness.judge import pairs
from harness.law import Law
from harness.machine import choose_device
from harness.matrix import render_matrix
from harness.mutant import Mutant
from harness.results import Recorder, ResultsError, Verdict
from harness.search import PROFILES
from harness.table import Table, UnknownName, load_table
from harness.variant import Implementation, Variant

ROOT = Path(__file__).parent
VERDICTS = pytest.StashKey[list[Verdict]]()
TABLE = pytest.StashKey[Table]()
CELLS = pytest.StashKey[list[tuple[Law, Variant, Implementation]]]()
SELECTING = ("variant", "implementation", "law")
SEED = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[VERDICTS] = []
    config.stash[TABLE] = load_table(config.getoption("--plugin"))
    chosen = [config.getoption(f"--{name}") for name in SELECTING]
    try:
        config.stash[CELLS] = list(pairs(config.stash[TABLE], *chosen))
    except UnknownName as error:
        raise pytest.UsageError(str(error)) from None
    if not config.stash[CELLS]:
        raise pytest.UsageError("no selected law applies to a selected implementation")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
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

    left_out = [item for item in items if not is_chosen(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if is_chosen(item)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" not in metafunc.fixturenames:
        return
    cells = metafunc.config.stash[CELLS]
    ids = [f"{v.name}-{i.name}-{law.id}-{law.name}" for law, v, i in cells]
    metafunc.parametrize("cell", cells, ids=ids)


@pytest.fixture(scope="session")
def table(request):
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def device(request):
    return choose_device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def profile_name():
    name = hypothesis.settings.get_current_profile_name()
    return name if name in PROFILES else "dev"


@pytest.fixture(scope="session")
def profile(request, profile_name):
    chosen = PROFILES[profile_name]
    seed = request.config.getoption("--hypothesis-seed", None)
    if seed and seed.isdigit():
        chosen = replace(chosen, seed=int(seed))
    elif chosen.seed is None:
        chosen = replace(chosen, seed=random.SystemRandom().randrange(2**32))
    request.config.stash[SEED] = chosen.seed
    return chosen


@pytest.fixture(scope="session")
def corpus():
    return load_corpus(ROOT / "corpus")


@pytest.fixture
def verdicts(request):
    return request.config.stash[VERDICTS]


@pytest.fixture(autouse=True)
def _global_state_is_left_alone():
    before = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
    yield
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()) == before


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
    rows = config.stash[VERDICTS]
    for failure in config.stash[TABLE].failures:
        terminalreporter.write_line(failure, yellow=True)
    if rows:
        terminalreporter.section("law x implementation: cases executed")
        for line in render_matrix(rows):
            terminalreporter.write_line(line)
        seed = config.stash[SEED]
        terminalreporter.write_line(f"seed {seed}; the same cases again: --hypothesis-seed={seed}")
        try:
            terminalreporter.write_line(f"results: {_record(config, rows)}")
        except ResultsError as error:
            terminalreporter.write_line(str(error), red=True)
