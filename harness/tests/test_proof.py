from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.case import ConvCase
from harness.check import Closeness, Refuted
from harness.memory import peak_of, saved_bytes
from harness.plan import Cell
from harness.proof import (
    Call,
    Common,
    Proof,
    Question,
    answer_session,
    load_answer,
    probe_session,
    proof_text,
    refutation_text,
)
from harness.table import Table, load_table
from harness.tensors import make_tensors

PLANTED = str(Path(__file__).with_name("planted.py"))
CASE = "n1 c2>3 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> Common:
    answers = tmp_path_factory.mktemp("answers")
    made = Common(plugins=(PLANTED,), device="cpu", threads=1, answers=answers)
    ask = answer_session(made, None)
    for case in (CASE, CASE.replace("real", "exact")):
        ask(Question("plain", case))
    return made


@pytest.fixture(scope="module")
def table() -> Table:
    return load_table((PLANTED,))


def _probe(common: Common, implementation: str, direction="forward", case=CASE) -> Proof:
    return probe_session(common, None)(Cell("plain", implementation, case, "", direction))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_what_is_right_is_proved_with_its_memory(common, direction):
    proof = _probe(common, "right", direction)
    assert proof.reason == ""
    assert proof.proof.startswith("T1: error 0.")
    output = 3 * 36 * 4
    assert proof.peak_bytes >= output
    assert proof.call_ns > 0
    assert proof.saved_bytes == (None if direction == "forward" else 0)
    assert _probe(common, "right", direction, CASE.replace("real", "exact")).proof == "T0: equal"


@pytest.mark.parametrize(
    ("implementation", "text"),
    [
        (
            "wrong",
            r"output differs: error \d+ of the bound at \[0, \d, \d, \d\]: got .*, expected ",
        ),
        ("rounds", "output differs: error"),
        ("other_dtype", r"output.dtype=torch.float64 where torch.float32 is expected"),
        ("changes_input", "changes its argument x"),
        ("remembers_shape", "output differs: error"),
        ("remembers_address", "output differs: error"),
        (
            "remembers_version",
            r"remembers: a first call on new values runs \d+ operators, the same call again [0-2]$",
        ),
        (
            "remembers_content",
            r"remembers: a first call on new values runs \d+ operators, the same call again [0-2]$",
        ),
    ],
)
def test_what_is_wrong_gets_no_number_but_a_reason(common, implementation, text):
    proof = _probe(common, implementation)
    assert (proof.proof, proof.peak_bytes, proof.call_ns) == ("", None, 0)
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(proof.reason)


def test_wrong_gradients_get_no_number(common, table, monkeypatch):
    right = table.implementation(table.variants["plain"], "right")

    def halved(x, *tensors, **keywords):
        return right.load()((x + x.detach()) / 2, *tensors, **keywords)

    implementation = replace(right, name="right", load=lambda: halved)
    spoiled = replace(table.variants["plain"], implementations=(implementation,))
    monkeypatch.setattr(
        "harness.proof.load_table", lambda _: Table(variants={"plain": spoiled}, laws={})
    )
    assert _probe(common, "right").reason == ""
    assert "gradient: x differs" in _probe(common, "right", "backward").reason


def test_an_exception_of_a_contender_is_left_to_the_isolation(common):
    with pytest.raises(ArithmeticError, match="out of order"):
        _probe(common, "raises")


def test_answers_are_those_of_the_oracle_and_their_absence_is_said(common, table):
    answer = load_answer(common.answers, "plain", CASE)
    tensors = make_tensors(table.variants["plain"], ConvCase.parse(CASE))
    wide = {name: value.double() for name, value in tensors.items()}
    expected = torch.conv2d(wide["x"], wide["weight"], wide["bias"], padding=1)
    torch.testing.assert_close(answer.truth["output"], expected)
    assert answer.bound["output"].tier == "T1"
    assert set(answer.gradients) == {"x", "weight", "bias"}
    with pytest.raises(RuntimeError, match="the oracle gave no answer for this case"):
        load_answer(common.answers, "plain", CASE.replace("seed0", "seed9"))


def test_saved_bytes_count_storages_once_and_leave_inputs_out(common, table, monkeypatch):
    right = table.implementation(table.variants["plain"], "right")

    def squaring(x, *tensors, **keywords):
        doubled = x * 1.0  # 2 * 36 entries, kept twice: by the product and by its square root
        return right.load()((doubled * doubled).sqrt() * x.sign(), *tensors, **keywords)

    implementation = replace(right, load=lambda: squaring)
    variant = replace(table.variants["plain"], implementations=(implementation,))
    call = Call(variant, implementation, ConvCase.parse(CASE), "backward")
    bound = call.bind(make_tensors(variant, ConvCase.parse(CASE)))
    plane = 2 * 36 * 4  # doubled, its root, the sign, and the product that the convolution keeps
    assert saved_bytes(call, bound) == 4 * plane


def test_the_peak_is_the_highest_running_sum_by_time():
    events = [(3.0, -50), (1.0, 100), (2.0, 30), (4.0, 60)]
    trace = {
        "traceEvents": [
            {"name": "aten::add", "ts": 0},
            *({"name": "[memory]", "ts": ts, "args": {"Bytes": size}} for ts, size in events),
        ]
    }
    assert peak_of(trace) == 140


def test_texts_of_proofs():
    assert proof_text(Closeness(compared=1)) == "T0: equal"
    note = Closeness(error_over_bound=0.3149, compared=2, vacuous=1, tier="T1")
    assert proof_text(note) == "T1: error 0.31 of the bound"
    assert "says little" in proof_text(Closeness(compared=2, vacuous=2))
    exact = Refuted(
        "output differs", expected=torch.tensor([1.0, 2.0]), got=torch.tensor([1.0, 5.0]),
        bound=torch.zeros(2),
    )  # fmt: skip
    assert refutation_text(exact) == (
        "output differs: where equality is required at [1]: got 5, expected 2"
    )
    lost = Refuted(
        "output differs", expected=torch.ones(1, 2), got=torch.tensor([[1.0, float("nan")]]),
        bound=torch.full((1, 2), 0.5),
    )  # fmt: skip
    assert refutation_text(lost).endswith("at [0, 1]: got nan, expected 1")
