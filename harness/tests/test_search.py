"""The search finds, shrinks and explains; nothing it compares can pass by broadcasting."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.case import ConvCase
from harness.check import Refuted, Trial
from harness.effort import Profile
from harness.law import Law
from harness.mutant import Mutant
from harness.results import Outcome
from harness.search import replay, search
from harness.table import load_table
from harness.tolerance import Bound, gamma

ROOT = Path(__file__).parents[2]
TABLE = load_table()
PLAIN, AGREES = TABLE.variant("plain"), TABLE.law("G1")
CASE = ConvCase.parse("n1 c1>1 i3 k1 b0 float64")


def _judge(spoil, cases=60):
    variant, wrong = Mutant(name="wrong", variant="plain", spoil=spoil).plant(PLAIN)
    return search(AGREES, variant, wrong, Profile(cases=cases))


def test_a_counterexample_shrinks_to_the_smallest_case_and_replays():
    def flip(right):
        return lambda x, w, *rest, **keywords: right(x, w.flip(-1), *rest, **keywords)

    finding = _judge(flip)
    assert finding.outcome is Outcome.REFUTED
    case = finding.case
    assert (case.n, case.c_in, case.c_out, case.groups, case.bias) == (1, 1, 1, 1, False)
    assert case.in_size == case.kernel_size == (2,)
    for part in (
        "expected (1, 1, 1)",
        "got (1, 1, 1)",
        "difference",
        "x (1, 1, 2)",
        "weight",
        "replay:",
    ):
        assert part in finding.screen
    assert f"python3 -m harness check 'plain/wrong/G1 {case}'" in finding.screen


def test_a_crash_is_told_apart_and_located():
    def crash(right):
        def wrong(x, *rest, **keywords):
            raise RuntimeError("no kernel for this shape")

        return wrong

    finding = _judge(crash)
    assert finding.outcome is Outcome.CRASHED
    assert "raised RuntimeError: no kernel for this shape" in finding.screen


@pytest.mark.parametrize(
    "spoil",
    [
        lambda right: lambda *a, **k: right(*a, **k).sum(1, keepdim=True),
        lambda right: lambda *a, **k: right(*a, **k).float().double().to(torch.float16),
        lambda right: lambda *a, **k: right(*a, **k) * float("nan"),
        lambda right: lambda *a, **k: right(*a, **k) * 0,
        lambda right: lambda *a, **k: (right(*a, **k),),
    ],
    ids=["shape", "dtype", "nan", "zeros", "tuple"],
)
def test_wrong_shapes_dtypes_and_values_are_refuted(spoil):
    assert _judge(spoil).outcome is Outcome.REFUTED


def test_a_law_whose_outputs_are_all_zero_is_mistrusted():
    def check(trial):
        zeros = torch.zeros(3)
        trial.agree({"output": zeros}, {"output": zeros})

    law = Law(id="X1", name="says_nothing", statement="0 = 0", check=check)
    effort = Profile(cases=20)
    assert search(law, PLAIN, PLAIN.reference, effort).outcome is Outcome.MISTRUSTED
    exempt = replace(law, zero_is_right=True)
    assert search(exempt, PLAIN, PLAIN.reference, effort).outcome is Outcome.HOLDS


def test_a_law_that_no_case_can_reach_is_an_error():
    law = replace(AGREES, within=lambda _: None, domain="nowhere")
    finding = search(law, PLAIN, PLAIN.reference, Profile(cases=5))
    assert (finding.outcome, finding.cases) == (Outcome.CRASHED, 0)
    assert finding.screen == "no drawn case of plain is in the law's domain: nowhere"


def test_a_case_outside_the_domain_is_unsupported_with_the_reason():
    law = replace(AGREES, within=lambda _: None, domain="nowhere")
    finding = replay(law, PLAIN, PLAIN.reference, CASE)
    assert (finding.outcome, finding.cases) == (Outcome.UNSUPPORTED, 0)
    assert finding.screen == "outside the law's domain: nowhere"


def test_every_dtype_and_rank_is_searched_or_says_why_not():
    law = replace(AGREES, dtypes=("float32", "float64"), domain="where sums are not rounded")
    finding = search(law, PLAIN, PLAIN.reference, Profile(cases=24))
    assert set(finding.counts) == {f"{d} {r}d" for d in ("float32", "float64") for r in (1, 2, 3)}
    assert set(finding.gaps) == {f"{d} {r}d" for d in ("bfloat16", "float16") for r in (1, 2, 3)}
    assert set(finding.gaps.values()) == {"outside the law's domain: where sums are not rounded"}


def test_a_case_that_is_declined_explains_the_dtype_it_was_moved_to_as_well():
    def halves(case):
        return replace(case, dtype="float16") if case.seed % 2 else case

    law = replace(AGREES, within=halves, domain="float16 where the seed is odd")
    picky = replace(
        PLAIN.reference,
        unsupported=lambda case: "no float16" if case.dtype == "float16" else None,
    )
    finding = search(law, PLAIN, picky, Profile(cases=24, dtypes=("float32",)))
    assert set(finding.counts) == {f"float32 {rank}d" for rank in (1, 2, 3)}
    assert {finding.gaps[f"float16 {rank}d"] for rank in (1, 2, 3)} == {"no float16"}


def test_one_that_is_slow_to_call_gets_its_share_and_the_rest_is_explained():
    slow = replace(PLAIN.reference, share=0.05)
    seen = set()
    for seed in range(12):
        finding = search(AGREES, PLAIN, slow, Profile(cases=60, seed=seed))
        assert (finding.outcome, finding.cases) == (Outcome.HOLDS, 3)
        assert len(finding.counts) == 3
        assert set(finding.gaps.values()) == {
            "library is slow to call: drawn elsewhere for this law"
        }
        seen |= finding.counts.keys()
    assert len(seen) == 12  # other seeds, like other laws, draw other dtypes and ranks


def test_one_that_is_slow_to_call_is_judged_everywhere_where_there_is_time():
    slow = replace(PLAIN.reference, share=0.5)
    finding = search(AGREES, PLAIN, slow, Profile(cases=60))
    assert (finding.cases, finding.gaps) == (36, {})


def test_a_domain_that_explains_nothing_leaves_a_hole():
    law = replace(AGREES, within=lambda case: case if case.spatial_dims == 2 else None)
    finding = search(law, PLAIN, PLAIN.reference, Profile(cases=12))
    assert finding.gaps["float32 1d"] == ""


def _trial():
    return Trial(PLAIN, PLAIN.reference, CASE)


def test_shapes_are_compared_before_values():
    with pytest.raises(Refuted, match=r"shape=\(3,\) where \(1, 3\) is expected"):
        _trial().agree({"output": torch.zeros(3)}, {"output": torch.zeros(1, 3)})


def test_fields_must_be_the_same():
    with pytest.raises(Refuted, match=r"fields \['mask'\] where \['output'\] are expected"):
        _trial().agree({"mask": torch.zeros(1)}, {"output": torch.zeros(1)})


@pytest.mark.parametrize(
    ("got", "expected", "equal"),
    [
        ([float("nan")], [float("nan")], True),
        ([float("inf")], [float("inf")], True),
        ([float("inf")], [-float("inf")], False),
        ([0.0], [float("nan")], False),
        ([-0.0], [0.0], True),
        ([1.0], [1.0 + 2.0**-52], False),
    ],
)
def test_values_are_compared_as_sets_of_special_values_first(got, expected, equal):
    left, right = ({"output": torch.tensor(v, dtype=torch.float64)} for v in (got, expected))
    bound = {"output": Bound(error=torch.zeros(1, dtype=torch.float64), tier="T1")}
    if equal:
        _trial().agree(left, right, bound)
    else:
        with pytest.raises(Refuted, match="output differs"):
            _trial().agree(left, right, bound)


def test_a_replay_judges_one_case():
    finding = replay(AGREES, PLAIN, PLAIN.reference, CASE)
    assert (finding.outcome, finding.cases, finding.tier) == (Outcome.HOLDS, 1, "T0")


def test_gamma_refuses_sums_without_a_correct_digit():
    with pytest.raises(ValueError, match="leave no correct digit"):
        gamma(2**24, 2.0**-24)


def _harness(*arguments):
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("cell", "code", "words"),
    [
        ("plain/library/G1 n1 c1>1 i3 k1", 0, "HOLDS"),
        ("plain/library n1 c1>1 i3 k1", 0, "remembers_nothing"),
        ("plain/library/G1 n1 c1>1 i3 k9", 2, "larger than the padded input"),
        ("plain/libary/G1 n1 c1>1 i3 k1", 2, "did you mean 'library'"),
        ("plain/library/P1 n1 c1>1 i3 k1", 2, "law P1 does not apply to plain"),
        ("plain", 2, "must be 'VARIANT/IMPLEMENTATION"),
    ],
)
def test_check_replays_from_the_command_line(cell, code, words):
    done = _harness("check", cell)
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_plug_in_is_refuted_on_one_screen():
    done = _harness(
        "check", "partial/broken n1 c1>1 i3 k2 p1", "--plugin", "examples/plugin_broken.py"
    )
    assert done.returncode == 1
    assert "REFUTED" in done.stdout
    assert "--plugin examples/plugin_broken.py" in done.stdout


def test_an_even_profile_gives_every_law_as_many_cases_but_costly_ones():
    def cases(share, **options):
        law = replace(AGREES, share=share)
        found = search(law, PLAIN, PLAIN.reference, Profile(cases=48, **options))
        return found.cases

    assert cases(0.5) == 24
    assert cases(0.5, evenly=True) == 48
    assert cases(0.05, evenly=True) == cases(0.05) == 12
