"""Which laws meet which implementations, and the matrix of their verdicts."""

import random
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
import torch

from harness.corpus import load_corpus
from harness.judge import pairs
from harness.machine import choose_device
from harness.matrix import render_matrix
from harness.results import Verdict
from harness.search import PROFILES
from harness.table import Table, UnknownName, load_table

ROOT = Path(__file__).parent
VERDICTS = pytest.StashKey[list[Verdict]]()
TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[VERDICTS] = []
    config.stash[TABLE] = load_table(config.getoption("--plugin"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" not in metafunc.fixturenames:
        return
    config, table = metafunc.config, metafunc.config.stash[TABLE]
    chosen = (config.getoption(f"--{name}") for name in ("variant", "implementation", "law"))
    try:
        cells = list(pairs(table, *chosen))
    except UnknownName as error:
        raise pytest.UsageError(str(error)) from None
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
    if chosen.seed is None:
        seed = int(seed) if seed and seed.isdigit() else random.SystemRandom().randrange(2**32)
        chosen = replace(chosen, seed=seed)
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


def run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


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
