"""The gate before the clock: no number without a green proof on exactly the tensors that are timed.

The oracle answers in a process of its own; every contender is then tried alone, in another, so that
it can neither see nor change the answers, and so that its crash or hang costs only itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness import clock
from harness.bound_call import Call, copied, fill
from harness.case import ConvCase
from harness.check import Closeness, Outputs, Refuted, Trial, expected_dtype
from harness.kernels import Kernels, kernels_of_call
from harness.memory import measure_memory
from harness.plan import Cell
from harness.surroundings import COMPILED, Surroundings, left_on
from harness.table import Table, load_table
from harness.tensors import leaves, make_tensors
from harness.tolerance import Bound
from harness.variant import Implementation, Need, Value
from harness.work import Work, work_of

__all__ = [
    "Answer", "Call", "Common", "Proof", "Question", "answer_session", "copied", "fill",
    "load_answer", "measure_memory", "prepare", "probe_session", "spoil_free_memory",
]  # fmt: skip

SEEDS = 2
"""Tensors that a contender is proved on: those that are timed, and others in the same memory."""
HANDED_OUT = 4
"""Results that are alive at once: the last one, the one before, one that is kept, and its copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What a child needs to know to find the table and the oracle's answers."""

    plugins: tuple[str, ...]
    device: str
    threads: int
    answers: Path


class Proof(NamedTuple):
    """What was found out about one cell before timing; `reason` is empty where it is proved."""

    reason: str = ""
    proof: str = ""
    peak_bytes: int | None = None
    saved_bytes: int | None = None
    call_ns: int = 0
    work: Work = Work()
    kernel_ns: int | None = None
    kernels: tuple[str, ...] = ()

    def costs(self) -> dict[str, Any]:
        """Return what a row says of the costs of a call, apart from its time."""
        return {
            "peak_bytes": self.peak_bytes, "saved_bytes": self.saved_bytes,
            "kernel_ns": self.kernel_ns, "kernels": self.kernels, **self.work._asdict(),
        }  # fmt: skip


class Question(NamedTuple):
    """A case that the oracle is asked about."""

    variant: str
    case: str


class Answer(NamedTuple):
    """What the oracle says of a case, with the allowed errors."""

    truth: Outputs
    bound: dict[str, Bound]
    gradients: Outputs
    gradient_bound: dict[str, Bound]


# -- in children -------------------------------------------------------------------------------


def answer_session(common: Common, cursor: Any) -> Callable[[Question], None]:
    """Return what asks the oracle and writes down its answer."""
    del cursor
    table, _ = prepare(common)

    def answer(question: Question) -> None:
        variant, case = table.variant(question.variant), ConvCase.parse(question.case)
        for seed in range(SEEDS):
            posed = replace(case, seed=case.seed + seed)
            trial = Trial(variant, table.implementation(variant, "oracle"), posed)
            path = answer_path(common.answers, variant.name, str(posed))
            partial = path.with_suffix(".partial")
            torch.save(
                {
                    "truth": trial.truth(),
                    "bound": {k: (b.error, b.tier) for k, b in trial.bound().items()},
                    "gradients": trial.true_gradients(),
                    "gradient_bound": {
                        k: (b.error, b.tier) for k, b in trial.gradient_bound().items()
                    },
                },
                partial,
            )
            partial.replace(path)

    return answer


def probe_session(common: Common, cursor: Any) -> Callable[[Cell], Proof]:
    """Return what tries one cell: right, on other tensors too, without memory, and how large."""
    del cursor
    table, clean = prepare(common)

    def probe(cell: Cell) -> Proof:
        if found := clean.changes():
            return Proof(reason=f"{found} before it is called")
        implementation = table.implementation(table.variant(cell.variant), cell.implementation)
        backward = cell.direction == "backward"
        with torch.set_grad_enabled(backward):
            try:
                proof = examine(cell)
            finally:
                if compiles(implementation):
                    clean.accept(*COMPILED)
                found = clean.changes({"torch.is_grad_enabled()": backward})
                if found:  # rather than an exception that comes of it
                    return Proof(reason=found)  # noqa: B012
        return proof

    def examine(cell: Cell) -> Proof:
        variant = table.variant(cell.variant)
        implementation = table.implementation(variant, cell.implementation)
        case = ConvCase.parse(cell.case)
        call = Call(variant, implementation, case, cell.direction)
        trial = Trial(variant, implementation, case, common.device)
        try:
            tensors = _prove(call, trial, common.answers)
            if not compiles(implementation):
                _require_no_memory(call, tensors, common.device)
            _require_own_memory(call, tensors)
        except Refuted as error:
            return Proof(reason=refutation_text(error))
        peak, saved = measure_memory(call, tensors, common.device)
        timer = clock.make_clock(common.device)
        bound = call.bind(tensors)
        call_ns = min(timer.sample(call, [bound])[0] for _ in range(2))
        work = work_of(call, tensors, counted=not compiles(implementation))
        kernels = Kernels()
        if common.device.startswith("cuda"):
            with contextlib.suppress(RuntimeError, OSError, ValueError):  # a profiler that fails
                kernels = kernels_of_call(lambda: call(bound))
        return Proof(
            proof=proof_text(trial.closeness), peak_bytes=peak, saved_bytes=saved, call_ns=call_ns,
            work=work, kernel_ns=kernels.sum_ns, kernels=kernels.names,
        )  # fmt: skip

    return probe


def prepare(common: Common) -> tuple[Table, Surroundings]:
    """Return the table, and how the process was before any plug-in was loaded."""
    torch.set_num_threads(common.threads)
    load_table(())
    if common.device.startswith("cuda"):
        torch.cuda.init()  # it may write to the environment
    clean = Surroundings()
    return load_table(common.plugins), clean


def compiles(implementation: Implementation) -> bool:
    """Return whether a compiler is at work, which keeps threads, and programs by shape."""
    return bool(implementation.needs & {Need.COMPILER, Need.TRITON})


def _prove(call: Call, trial: Trial, answers: Path) -> dict[str, Value]:
    """Compare with the oracle on every seed, all in the same memory; return the last tensors."""
    tensors = dict(trial.tensors)
    for seed in range(SEEDS):
        case = replace(call.case, seed=call.case.seed + seed)
        for name, value in make_tensors(call.variant, case, trial.device).items():
            fill(tensors[name], value)
        call.pose(case)
        before = {name: tensor.clone() for name, tensor in leaves(tensors).items()}
        answer = load_answer(answers, call.variant.name, str(case))
        spoil_free_memory(answer.truth.values(), expected_dtype(case), trial.device)
        bound, running = call.bind(tensors), threading.active_count()
        result = call(bound)
        # At once: what threads do afterwards is too late.
        found, running = copied(call.read(result, tensors)), threading.active_count() - running
        if running > 0 and not compiles(trial.implementation):
            raise Refuted(f"leaves {running} thread running as it returns")
        compare(trial, call, found, answer)
        for name, tensor in leaves(tensors).items():
            if not torch.equal(tensor.nan_to_num(), before[name].nan_to_num()):
                raise Refuted(f"changes its argument {name}")
        for tensor in leaves({str(i): value for i, value in enumerate(bound[0])}).values():
            if left := left_on(tensor):
                raise Refuted(f"leaves {left} on an argument")
    return tensors


def spoil_free_memory(outputs: Iterable[Tensor], dtype: torch.dtype, device: str) -> None:
    """Fill memory that the allocator hands out next with NaN: who writes nothing returns that."""
    held = [
        torch.full(t.shape, float("nan"), dtype=dtype, device=device)
        for t in outputs
        for _ in range(HANDED_OUT)
    ]
    del held


def compare(trial: Trial, call: Call, found: tuple[Outputs, Outputs], answer: Answer) -> None:
    """Raise Refuted unless a result is what the oracle says: type, shape, values, gradients."""
    outputs, gradients = found
    dtype = expected_dtype(call.case)
    for name, value in (outputs | gradients).items():
        trial.require(value.dtype == dtype, f"{name}.dtype={value.dtype} where {dtype} is expected")
        device = torch.device(trial.device).type
        trial.require(
            value.device.type == device, f"{name} is on {value.device}, the arguments on {device}"
        )
    trial.agree(outputs, answer.truth, answer.bound)
    if call.backward:
        trial.agree(gradients, answer.gradients, answer.gradient_bound, "gradient")


def _require_own_memory(call: Call, tensors: Mapping[str, Value]) -> None:
    """Raise Refuted where a result lies in memory of its arguments or of an earlier result."""
    bound = call.bind(tensors)
    first, second = call(bound), call(bound)
    given = _storages(leaves({str(i): value for i, value in enumerate(bound[0])}).values())
    given |= _storages(() if call.posed is None else (call.posed,))
    (output, gradients), (_, again) = call.read(first, tensors), call.read(second, tensors)
    earlier = _storages([*output.values(), *gradients.values()]) - given
    later = {**call.read(second, tensors)[0], **again}
    for name, tensor in later.items():
        if _storages([tensor]) & earlier:
            raise Refuted(f"{name} lies in the memory of an earlier result")
    if _storages([later["output"]]) & given:
        raise Refuted("output lies in the memory of an argument")


def _storages(tensors: Iterable[Tensor]) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors if t.untyped_storage().nbytes()}


def _require_no_memory(call: Call, tensors: Mapping[str, Value], device: str) -> None:
    """Raise Refuted where repeating a call runs fewer operators than the first call did.

    An implementation that remembers answers would be timed at remembering; one that remembers what
    depends on shapes alone has done so in the calls before.
    """
    case = replace(call.case, seed=call.case.seed + 1)
    for name, value in make_tensors(call.variant, case, device).items():
        fill(tensors[name], value)
    require_no_memory(call, call.bind(tensors))


def require_no_memory(call: Call, bound: Any) -> None:
    """Raise Refuted where a call on new values runs other operators than its repetition."""
    first, second = _operators(call, bound), _operators(call, bound)
    if first != second:
        raise Refuted(
            f"remembers: a first call on new values runs {sum(first.values())} operators, the same "
            f"call again {sum(second.values())}"
        )


class _Counting(TorchDispatchMode):
    def __init__(self, seen: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the first call in a process imports torch's compiler, for seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


def _operators(call: Call, bound: Any) -> Counter[str]:
    seen: Counter[str] = Counter()
    with _Counting(seen):
        call(bound)
    return seen


# -- values ------------------------------------------------------------------------------------


def answer_path(folder: Path, variant: str, case: str) -> Path:
    """Return where the oracle's answer to a case is kept."""
    digest = hashlib.sha256(f"{variant} {case}".encode()).hexdigest()[:24]
    return folder / f"{digest}.answer"


def load_answer(folder: Path, variant: str, case: str) -> Answer:
    """Read what the oracle said of a case.

    Raises:
        RuntimeError: the oracle did not answer.
    """
    path = answer_path(folder, variant, case)
    if not path.exists():
        raise RuntimeError("the oracle gave no answer for this case")
    data = torch.load(path, weights_only=True)
    bounds = {
        name: {k: Bound(error=error, tier=tier) for k, (error, tier) in data[name].items()}
        for name in ("bound", "gradient_bound")
    }
    return Answer(data["truth"], bounds["bound"], data["gradients"], bounds["gradient_bound"])


def proof_text(note: Closeness) -> str:
    """Return a proof in words."""
    text = "T0: equal" if note.tier == "T0" else (
        f"{note.tier}: error {note.error_over_bound:.2g} of the bound"
    )  # fmt: skip
    trivial = note.compared and note.vacuous == note.compared
    return text + ("; says little: mostly zeros or smaller than the bound" if trivial else "")


def refutation_text(error: Refuted) -> str:
    """Return a refutation in one line: what differs, how far over the bound, and where."""
    if error.expected is None or error.got is None or not error.expected.numel():
        return error.message
    difference = (error.got - error.expected).abs().nan_to_num(float("inf"))
    allowed = torch.zeros_like(difference) if error.bound is None else error.bound
    over = difference / allowed.clamp(min=2.0**-1000)
    over = over.where((difference > allowed) & (error.got != error.expected), 0.0)
    worst = int(over.argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(worst), over.shape)]
    got, expected = (float(t.reshape(-1)[worst]) for t in (error.got, error.expected))
    excess = float(over.reshape(-1)[worst])
    words = f"error {excess:.3g} of the bound" if excess < 1e300 else "where equality is required"
    return f"{error.message}: {words} at {index}: got {got:.9g}, expected {expected:.9g}"
