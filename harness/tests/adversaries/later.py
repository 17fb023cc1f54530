"""Contenders that are honest while they are proved: the timing process has to find them."""

from __future__ import annotations

import gc
import hashlib
import random
from typing import Any

import torch
from torch import Tensor

from harness.case import ConvCase
from harness.tests.adversaries.attack import After, Attack, empty, right

CASE = "n2 c3>4 i6x6 k3x3 s1x1 p1x1 d1x1 g1 b1 float32 contiguous real seed0"
_known: dict[Any, Tensor] = {}


def _zeros(*tensors: Any, **keywords: Any) -> Tensor:
    return empty(*tensors[:2], **keywords).zero_()


def _low(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    return right(x.bfloat16().float(), *tensors, **keywords)


def _at_random(*tensors: Any, **keywords: Any) -> Tensor:
    skips = _draw.random() < 0.3
    return (_zeros if skips else right)(*tensors, **keywords)


def _by_version(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    key = (x.data_ptr(), x._version)
    if key not in _known:
        _known[key] = right(x, *tensors, **keywords)
    return _known[key].clone()


def _first_of_batch(*tensors: Any, **keywords: Any) -> Tensor:
    _left["batch"] = _left.get("batch", 0) + 1
    return (right if _left["batch"] % 50 == 1 else _zeros)(*tensors, **keywords)


def _without_collector(*tensors: Any, **keywords: Any) -> Tensor:
    return (right if gc.isenabled() else _zeros)(*tensors, **keywords)


def _prepared(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    """Know the answers to the proved values before the first call."""
    key = hashlib.sha256(x.detach().numpy().tobytes()).digest()
    found: Tensor = _answers().get(key, _zeros)(x, *tensors, **keywords)
    return found


def _answers() -> dict[bytes, Any]:
    from harness.table import load_table
    from harness.tensors import make_tensors

    if not _prepared_answers:
        plain = load_table(()).variants["plain"]
        for seed in range(2):
            case = ConvCase.parse(CASE.replace("seed0", f"seed{seed}"))
            tensors = make_tensors(plain, case)
            given: list[Any] = list(tensors.values())
            answer = right(*given, **plain.call_keywords(case))
            x = tensors["x"]
            assert isinstance(x, Tensor)
            found = hashlib.sha256(x.numpy().tobytes()).digest()
            _prepared_answers[found] = lambda *_, answer=answer, **__: answer.clone()
    return _prepared_answers


def _turns_grad_on(*tensors: Any, **keywords: Any) -> Tensor:
    result = right(*tensors, **keywords)
    torch.set_grad_enabled(True)
    return result


def _tidies_up(*tensors: Any, **keywords: Any) -> Tensor:
    torch.autograd.set_detect_anomaly(_draw.random() < 0.5)
    return right(*tensors, **keywords)


def _changes(x: Tensor, *tensors: Any, **keywords: Any) -> Tensor:
    result = right(x, *tensors, **keywords)
    x.data.add_(1)
    return result


_draw, _left = random.Random(5), dict[str, int]()
_prepared_answers: dict[bytes, Any] = {}
ONE_OF_EACH = "of every sample one call, drawn at random, is compared with the reference"
DIFFERS = "output of a timed call differs"

LATER = (
    Attack("wrong_later", After(_zeros), "is right in its first calls only", ONE_OF_EACH, DIFFERS,
           timed=True),
    Attack("low_later", After(_low), "turns to bfloat16 later",
           f"{ONE_OF_EACH}, the last with the oracle", "output.* differs", timed=True),
    # now and then chance spares every call that is looked at, and two counts of operators differ
    Attack("random_failure", After(_at_random), "skips three calls in ten, at random", ONE_OF_EACH,
           f"{DIFFERS}|remembers: a first call", timed=True),
    Attack("first_of_batch", After(_first_of_batch), "computes one call in fifty", ONE_OF_EACH,
           DIFFERS, timed=True),
    Attack("memo_later", After(_by_version), "begins to remember after the proof",
           "operators are counted again after timing", "remembers: a first call", timed=True),
    Attack("collector_as_signal", _without_collector, "takes a stopped collector for a timing",
           ONE_OF_EACH, DIFFERS, timed=True),
    Attack("prepared_answers", _prepared, "knows the answers for the values that are proved",
           "values that are timed are others", DIFFERS, timed=True),
    Attack("grad_mode_later", After(_turns_grad_on), "turns gradients on later",
           "the process is compared in every block", r"changes torch\.is_grad_enabled",
           timed=True),
    Attack("tidies_up", After(_tidies_up), "slows others down later, and tidies up now and then",
           "the process is compared at a moment drawn at random, too",
           r"changes torch\.is_anomaly_enabled", timed=True),
    Attack("changes_input_later", After(_changes), "changes its input later, through `.data`",
           "contents of one set of arguments, drawn at random, in every block; then of all",
           "changes its argument x past its version counter|timed call differs", timed=True),
)  # fmt: skip
