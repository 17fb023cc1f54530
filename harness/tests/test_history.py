"""A run against an earlier one: timed again beside it, or shown as history that decides nothing."""

import contextlib
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from harness import clock, conclusion, duel, history
from harness.__main__ import main
from harness.comparison import compare
from harness.contest import Rules
from harness.duel import Lost, Row
from harness.evidence import read_evidence
from harness.history import ONCE, REGRESSION, ROOT, SHAKY
from harness.plan import Cell
from harness.proof import Common, answer_path
from harness.results import LoadedRun, Measurement, Recorder, ResultsError, Status, load_run
from harness.table import load_table

CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
TABLE = load_table()
CELL = Cell("plain", "library", CASE, "", "forward")
OTHER = Cell("plain", "onednn", CASE, "", "backward")
FEW = Rules(2, 4)
KEPT = ROOT / "docs" / "runs" / "quick_on_a_cpu"


def _comparison(ratio, *, placebo=False):
    (row,) = compare(
        (
            Measurement(
                run_id="history", variant="v", implementation=name, case=CASE, case_name="",
                direction="forward", dtype="float32", device="cpu", threads=1, process=process,
                block=(0, 1), samples_ns=(round(time * (1 + process / 1e3)),) * 2,
                calls_per_sample=1, status=Status.MEASURED,
            )
            for process in range(4)
            for name, time in (("then", 10**6), ("now", round(ratio * 10**6 * (1 + process / 1e3))))
        ),
        {"v": "then"},
    )  # fmt: skip
    return replace(row, placebo=placebo)


def _fighting(*rounds):
    """Return what plays the duels: a ratio now and of the placebo per cell, round after round."""
    asked = []

    def play(table, cells, then, now, rules, **_):
        ratios = rounds[len(asked)]
        asked.append([cell.implementation for cell in cells])
        assert (then / "harness" / "table.py").is_file()
        return [
            Row(cell, _comparison(ratios[cell][0]), _comparison(ratios[cell][1], placebo=True))
            for cell in cells
        ]

    return play, asked


@pytest.fixture
def past():
    """Return a run of the last commit, with the two cells."""
    kept = load_run(KEPT)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    if not commit:
        pytest.skip("no git here")
    return _run(replace(kept.run, commit=commit, dirty="", device="cpu", threads=1), "then")


def _run(run, name):
    rows = [
        Measurement(
            run_id=run.id, variant=cell.variant, implementation=cell.implementation, case=CASE,
            case_name="", direction=cell.direction, dtype="float32", device="cpu", threads=1,
            process=process, block=(0,), samples_ns=(1000 + process,), calls_per_sample=1,
            status=Status.MEASURED, proof=name,
        )
        for cell in (CELL, OTHER)
        for process in range(2)
    ]  # fmt: skip
    return LoadedRun(run=run, measurements=tuple(rows), verdicts=())


def _written(run, folder):
    Recorder(folder).write_run(run.run)
    for row in run.measurements:
        Recorder(folder).add(row)
    return folder


def test_a_regression_must_recur_in_a_second_run(past):
    play, asked = _fighting(
        {CELL: (1.2, 1.0), OTHER: (1.2, 1.0)}, {CELL: (1.2, 1.0), OTHER: (1.0, 1.0)}
    )
    found = history.rerun(TABLE, past, [CELL, OTHER], rules=FEW, fighting=play)
    assert [one.verdict for one in found] == [REGRESSION, ONCE]
    assert asked == [["library", "onednn"], ["library", "onednn"]]


def test_only_what_was_slower_is_looked_at_twice(past):
    play, asked = _fighting({CELL: (1.2, 1.0), OTHER: (0.8, 1.0)}, {CELL: (1.2, 1.0)})
    found = history.rerun(TABLE, past, [CELL, OTHER], rules=FEW, fighting=play)
    assert [one.verdict for one in found] == [REGRESSION, "FASTER"]
    assert asked[1] == ["library"]


@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.02])
def test_what_is_within_the_margin_is_no_regression(past, ratio):
    play, asked = _fighting({CELL: (ratio, 1.0)})
    found = history.rerun(TABLE, past, [CELL], rules=FEW, fighting=play)
    assert found[0].verdict != REGRESSION
    assert len(asked) == 1


def test_where_the_placebo_differs_nothing_is_said(past):
    play, asked = _fighting({CELL: (1.2, 1.2)})
    found = history.rerun(TABLE, past, [CELL], rules=FEW, fighting=play)
    assert [one.verdict for one in found] == [SHAKY]
    assert len(asked) == 1


def test_a_regression_is_kept_with_the_run_and_in_the_exit_code(past, tmp_path):
    folder, said = (
        _written(_run(replace(past.run, id="20260131-000000-aaaaaaaa"), "now"), tmp_path / "r"),
        [],
    )
    play, _ = _fighting({CELL: (1.2, 1.0), OTHER: (1.0, 1.0)}, {CELL: (1.2, 1.0)})
    assert history.against(TABLE, past, folder, None, said.append, fighting=play) == 1
    table = read_evidence(folder / "evidence" / "history.json")
    assert table.column("verdict") == (REGRESSION, "SAME")
    assert table.column("placebo")[0].startswith("1.0")
    assert "1 regressions in 2 cells" in said[-1]
    shown = conclusion._history(folder)
    assert [row["verdict"] for row in shown["rows"]] == [REGRESSION, "SAME"]
    assert conclusion._history(folder / "evidence") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dirty": "c0ffee"}, "uncommitted changes"),
        ({"commit": "0" * 40}, "is not in the repository"),
        ({"commit": "unknown"}, "commit unknown of run"),
        ({"device": "cuda"}, "measured no cell of this run on cpu with 1 thread"),
        ({"threads": 2}, "measured no cell"),
    ],
)
def test_what_cannot_be_timed_again_is_history_only_and_decides_nothing(
    past, tmp_path, change, words
):
    folder, said = (
        _written(_run(replace(past.run, id="20260131-000000-aaaaaaaa"), "now"), tmp_path / "r"),
        [],
    )
    old = replace(past, run=replace(past.run, **change))
    assert history.against(TABLE, old, folder, None, said.append, fighting=None) == 0
    assert said[0].startswith("history only: ")
    assert words in said[0]
    assert words in read_evidence(folder / "evidence" / "history.json").about


def test_history_shows_the_ratios_of_both_runs(past, tmp_path):
    kept = load_run(KEPT)
    said: list[str] = []
    folder = shutil.copytree(KEPT, tmp_path / "again")
    old = replace(kept, run=replace(kept.run, dirty="c0ffee"))
    assert history.against(TABLE, old, folder, None, said.append) == 0
    table = read_evidence(folder / "evidence" / "history.json")
    assert table.columns[-2:] == ("ratio then", "ratio now")
    assert table.rows
    assert table.column("ratio then") == table.column("ratio now")


def test_old_code_that_does_not_run_is_history_only(past, tmp_path):
    folder, said = (
        _written(_run(replace(past.run, id="20260131-000000-aaaaaaaa"), "now"), tmp_path / "r"),
        [],
    )

    def lost(*_, **__):
        raise Lost("then: ImportError: no table")

    assert history.against(TABLE, past, folder, None, said.append, fighting=lost) == 0
    assert "then: ImportError: no table" in said[0]


def test_a_run_that_is_not_there_is_refused_before_anything_is_measured(tmp_path, capsys):
    command = ["bench", "--against", "no_such_run", "--out", str(tmp_path)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "--against no_such_run: expected the folder of an earlier run or its id in" in said


def test_a_run_found_by_its_id_is_the_one_of_its_folder(tmp_path):
    shutil.copytree(KEPT, tmp_path / "kept")
    assert history.load_past("kept", tmp_path).run == history.load_past(str(KEPT), tmp_path).run
    with pytest.raises(ResultsError, match=r"there is no .*run\.json"):
        history.load_past("other", tmp_path)


# -- the order of things -----------------------------------------------------------------------


@pytest.fixture
def plays_processes(monkeypatch, tmp_path):
    """Let a cell take a second, or raise what is planted for it; note who was timed when."""
    now, timed, opened = [0.0], [], []

    @contextlib.contextmanager
    def asked(questions, device, threads, deadline_s=None, plugins=()):
        yield Common(plugins=(), device=device, threads=threads, answers=tmp_path)

    @contextlib.contextmanager
    def sides(then, at_present, common, process):
        opened.append(process)
        yield {}

    def play(raises):
        def time_one(table, cell, sides, common, rules, turn):
            now[0] += 1.0
            timed.append((turn.process, cell.case_name))
            if cell.case_name in raises:
                raise raises[cell.case_name]
            return [
                Measurement(
                    run_id="history", variant="plain/library", implementation=name, case=cell.case,
                    case_name=cell.case_name, direction="forward", dtype="float32", device="cpu",
                    threads=1, process=turn.process, block=(0,), samples_ns=(1000,), placebo=placebo,
                    calls_per_sample=1, status=Status.MEASURED,
                )
                for name, placebo in (("then", False), ("now", False), ("then", True))
            ]  # fmt: skip

        monkeypatch.setattr(duel, "_timed", time_one)
        return timed, opened

    monkeypatch.setattr(duel, "answered", asked)
    monkeypatch.setattr(duel, "_sides", sides)
    monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])
    return play


def _named(*names):
    sizes = range(6, 6 + len(names))
    return [
        CELL._replace(case_name=name, case=CASE.replace("i6x6", f"i{size}x{size}"))
        for name, size in zip(names, sizes, strict=True)
    ]


def test_the_time_is_shared_by_the_sets_of_processes(plays_processes):
    timed, _ = plays_processes({})
    rows = duel.fight(
        TABLE, _named("a", "b", "c", "d"), Path(), Path(), Rules(3, 1), deadline_s=5.5
    )
    # a set has 1.8 s, a cell takes one: the first set settles who is timed at all
    assert timed == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert [row.reason for row in rows] == ["", "", duel.NO_TIME, duel.NO_TIME]
    assert rows[0].now.processes == 3


def test_a_side_that_is_lost_costs_one_cell_and_the_others_get_new_processes(plays_processes):
    timed, opened = plays_processes({"b": Lost("now: ended with exit code 1")})
    rows = duel.fight(TABLE, _named("a", "b", "c"), Path(), Path(), Rules(2, 1))
    assert [row.reason for row in rows] == ["", "now: ended with exit code 1", ""]
    assert opened == [0, 0, 1]
    assert timed == [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "c")]


def test_an_oracle_that_is_late_costs_the_cells_it_did_not_answer(plays_processes, monkeypatch):
    timed, _ = plays_processes({})
    first, second = cells = _named("a", "b")
    ended = []

    @contextlib.contextmanager
    def asked(questions, device, threads, deadline_s, plugins):
        del questions, plugins
        ended.append(deadline_s)
        monkeypatch.setattr(clock, "monotonic_s", lambda: deadline_s + 0.1)
        folder = Path(tempfile.mkdtemp())
        answer_path(folder, first.variant, first.case).touch()
        yield Common(plugins=(), device=device, threads=threads, answers=folder)

    monkeypatch.setattr(duel, "answered", asked)
    rows = duel.fight(TABLE, cells, Path(), Path(), Rules(1, 1), deadline_s=100.0)
    assert ended == [pytest.approx(30.0)]
    assert timed == [(0, "a")]
    assert [row.reason for row in rows] == ["", duel.NO_TIME]
    assert rows[1].cell == second


# -- plug-ins ----------------------------------------------------------------------------------

PLANTED = Path(__file__).with_name("planted.py")


def test_who_comes_from_a_plug_in_is_timed_apart_or_said_to_be_left_out(past):
    table, asked = load_table((str(PLANTED),)), []
    right = CELL._replace(implementation="right")

    def play(table, cells, then, now, rules, *, plugins, **_):
        asked.append(([cell.implementation for cell in cells], plugins))
        if plugins:
            raise Lost("then: ImportError: plug-in planted.py is left out: no Kind")
        return [Row(c, _comparison(1.0), _comparison(1.0, placebo=True)) for c in cells]

    found = history.rerun(
        table, past, [right, CELL], rules=FEW, fighting=play, plugins=[str(PLANTED)]
    )
    assert asked == [(["library"], ()), (["right"], (str(PLANTED),))]
    assert [one.verdict for one in found] == [
        "left out: then: ImportError: plug-in planted.py is left out: no Kind", "SAME"
    ]  # fmt: skip


def test_a_plug_in_of_the_checkout_is_that_of_either_side(tmp_path):
    inside, then = tmp_path / "now" / "mine.py", tmp_path / "then"
    inside.parent.mkdir()
    inside.touch()
    outside = tmp_path / "other.py"
    outside.touch()
    assert duel._found_from(str(inside), then, tmp_path / "now") == str(then / "mine.py")
    assert duel._found_from(str(outside), then, tmp_path / "now") == str(outside)
    assert duel._found_from("a.module", then, tmp_path / "now") == "a.module"


def test_a_side_times_a_plug_in_and_says_which_it_cannot_load(tmp_path):
    process = duel.Process("now", ROOT, "cpu", 1, tmp_path / "log", [str(PLANTED)])
    process.answer(120.0)
    process.end()
    process = duel.Process("then", ROOT, "cpu", 1, tmp_path / "log", [str(tmp_path / "gone.py")])
    with pytest.raises(Lost, match=r"then: ImportError: plug-in .*gone.py is left out"):
        process.answer(120.0)
    process.end()


def test_a_process_that_is_gone_says_how(tmp_path):
    log = tmp_path / "log"
    process = duel.Process("then", tmp_path, "cpu", 1, log)
    with pytest.raises(Lost, match=r"then: (ModuleNotFoundError|ImportError): "):
        process.answer(60.0)
    process.end()


# -- the real thing ----------------------------------------------------------------------------

SLOWED = """

_once = convolve


def convolve(*arguments, **keywords):
    for _ in range(40):
        _once(*arguments, **keywords)
    return _once(*arguments, **keywords)
"""


@pytest.fixture
def repository(tmp_path):
    """Return a repository of this code as it is, in which the plain convolution is then slowed."""
    root = tmp_path / "checkout"
    left_out = shutil.ignore_patterns("__pycache__", "tests", "evidence", "corpus", "studies")
    for name in ("harness", "impls", "properties"):
        shutil.copytree(ROOT / name, root / name, ignore=left_out)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "then"]):
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no git here: {done.stderr!r}")
    with (root / "impls" / "_shared" / "convolution.py").open("a", encoding="utf-8") as file:
        file.write(SLOWED)
    return root


def test_two_checkouts_are_timed_beside_each_other_and_a_slowdown_shows(repository, past):
    commit = history._git(repository, "rev-parse", "HEAD").decode().strip()
    old = replace(past, run=replace(past.run, commit=commit))
    assert history.why_not_again(old.run, repository) == ""
    larger = CELL._replace(case=CASE.replace("i6x6", "i48x48").replace("c2>3", "c8>8"))
    wrong = CELL._replace(implementation="onednn", case=larger.case)
    code = repository / "impls" / "plain" / "onednn.py"
    code.write_text(code.read_text().replace("def onednn(", "def _onednn(") + BROKEN)
    # one set of processes: whether a difference is told from noise is not this test's question
    found = history.rerun(TABLE, old, [wrong, larger], root=repository, rules=Rules(1, 3))
    assert found[0].verdict.startswith("now: output differs: error")
    assert found[1].verdict == "UNRESOLVED"
    assert found[1].row.now.ratio > 5
    assert found[1].row.now.ratio > 2 * found[1].row.placebo.ratio


BROKEN = """

def onednn(*arguments, **keywords):
    return _onednn(*arguments, **keywords) + 1
"""


def test_a_bench_run_against_another_ends_with_its_page(past, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(conclusion, "_run_pytest_benchmark", lambda *_: "")
    monkeypatch.setattr(conclusion, "_write_page", lambda *_: (Path("page.html"), ""))
    _written(replace(past, run=replace(past.run, dirty="c0ffee")), Path("results") / past.run.id)
    words = ["bench", "--variant", "plain", "--case", CASE, "--laws", "none", "--processes", "1",
             "--blocks", "3", "--device", "cpu", "--implementation", "onednn", "--direction",
             "backward", "--against", past.run.id]  # fmt: skip
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "report: page.html"
    assert f"history only: run {past.run.id} was of a checkout with uncommitted" in captured.err
    (folder,) = (one for one in Path("results").iterdir() if one.name != past.run.id)
    assert read_evidence(folder / "evidence" / "history.json").rows
    assert load_run(folder).run.argv[-2:] == ("--against", past.run.id)
