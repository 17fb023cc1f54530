"""No contender of `harness/tests/adversaries` gets a number, and the page about them is true."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness import benchmark, clock
from harness.plan import Cell
from harness.proof import Common, Question, answer_session, probe_session
from harness.results import LoadedRun, Status, load_run
from harness.tests.adversaries import ATTACKS
from harness.tests.adversaries.attack import Attack, page
from harness.tests.adversaries.later import CASE

ROOT = Path(benchmark.__file__).resolve().parent.parent
PLUGIN = "harness.tests.adversaries"
LOADED = [a.name for a in ATTACKS if a.function is None]
FORWARD = [a for a in ATTACKS if a.direction == "forward"]
WITHOUT_PAGE = (
    "from harness import conclusion as c, __main__ as m; "
    "c._run_pytest_benchmark = lambda *_: ''; c._write_page = lambda *_: (None, ''); "
    "import sys; sys.exit(m.main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> LoadedRun:
    """All that is forward, timed beside the table's own by the real machinery."""
    folder = tmp_path_factory.mktemp("adversaries")
    plugins = [PLUGIN, *(f"{PLUGIN}.{name}" for name in LOADED)]
    names = ["onednn", *(a.name for a in FORWARD)]
    words = [
        "bench", "--variant", "plain", "--case", CASE, "--laws", "none", "--device", "cpu",
        "--direction", "forward", "--processes", "1", "--blocks", "16",
        *(word for plugin in plugins for word in ("--plugin", plugin)),
        *(word for name in names for word in ("--implementation", name)),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PAGE, *words], cwd=folder, check=False, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (made,) = (folder / "results").iterdir()
    return load_run(made)


@pytest.mark.parametrize("attack", FORWARD, ids=lambda a: a.name)
def test_an_adversary_gets_a_reason_and_no_number(run, attack: Attack):
    (row,) = [row for row in run.measurements if row.implementation == attack.name]
    assert (row.status, row.samples_ns) == (Status.REFUTED, ())
    assert re.search(attack.found, row.reason), row.reason
    assert bool(row.proof) is attack.timed


def test_whoever_is_honest_beside_them_is_measured(run):
    honest = Counter(
        row.implementation for row in run.measurements if row.status is Status.MEASURED
    )
    assert honest == {"library": 2, "onednn": 1}
    samples = [row.samples_ns for row in run.measurements if row.status is Status.MEASURED]
    assert {len(found) for found in samples} == {16}


@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if a.direction == "backward"], ids=lambda a: a.name
)
def test_an_adversary_of_the_backward_direction_is_found_by_the_proof(tmp_path, attack: Attack):
    common = Common(plugins=(PLUGIN,), device="cpu", threads=1, answers=tmp_path)
    answer_session(common, None)(Question("plain", CASE))
    found = probe_session(common, None)(Cell("plain", attack.name, CASE, "", "backward"))
    assert (found.proof, found.call_ns) == ("", 0)
    assert re.search(attack.found, found.reason), found.reason


def test_there_are_enough_and_each_has_a_name_an_attack_and_a_defence():
    assert len(ATTACKS) >= 24
    assert len({a.name for a in ATTACKS}) == len(ATTACKS)
    assert all(a.attack and a.defence and a.found for a in ATTACKS)


def test_the_page_of_the_threat_model_is_made_of_the_table_of_attacks():
    written = (ROOT / "docs/threat_model.md").read_text(encoding="utf-8")
    assert written == page(ATTACKS), "python3 -m harness.tests.adversaries > docs/threat_model.md"


@pytest.mark.parametrize(
    ("shown", "waited", "alive", "possible"),
    [
        (1.0, 1.0, 2.0, True), (1.0, 2.0, 4.0, True), (0.0, 0.9, 5.0, True),
        (0.1, 3.0, 9.0, False), (2.1, 1.0, 2.0, False),
    ],
)  # fmt: skip
def test_what_a_process_says_of_time_has_to_fit_its_parents_clock(shown, waited, alive, possible):
    reason = clock.disagreement(shown, waited, alive)
    assert (reason == "") is possible
    assert possible or "by its parent's" in reason
