"""A layer has parameters and nothing else: no history of calls, copies and moves shows in it."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from torch import nn

from harness.case import DTYPES, ConvCase
from harness.check import Outputs, Refuted, Trial
from harness.law import Law
from harness.tensors import torch_dtype
from harness.variant import Ability
from properties.layer_cases import Made, evaluated, larger, layer_gradients, of_case, outputs, roomy
from properties.masked_cases import holey
from properties.turns import in_turns

MOODS: dict[str, Callable[[], Any]] = {
    "enable_grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}
LEARNING_RATE = 2.0**-6
CALLS = st.integers(0, 3)
CHANGES = ("train", "eval", "deepcopy", "pickle", "load_state", *DTYPES)
Step = tuple[Any, ...]


class History:
    """One layer and what was done to it; every step ends in a call beside a fresh layer."""

    def __init__(self, t: Trial) -> None:
        self.t, self.dtype, self.training = t, t.case.dtype, True
        self.known: dict[tuple[int, str], Made] = {}
        self.module = self._made(0)[0]

    def take(self, step: Step) -> None:
        """Take a step: the name of a method, and its arguments."""
        name, *arguments = step
        getattr(self, name)(*arguments)

    def call(self, index: int, mood: str = "enable_grad") -> None:
        """Call the layer and a fresh one."""
        inputs = self._inputs(index)
        with MOODS[mood]():
            self._agree(*(_seeded(m, inputs) for m in (self.module, self._fresh())))

    def learn(self, index: int) -> None:
        """Take a step down the gradient, which must be that of a fresh layer."""
        inputs, fresh = self._inputs(index), self._fresh()
        for module in (self.module, fresh):
            module.zero_grad()
            _seeded(module, inputs)["output"].sum().backward()
        own, other = ({n: p.grad for n, p in m.named_parameters()} for m in (self.module, fresh))
        given = {n: g for n, g in other.items() if g is not None}
        self.t.agree({n: g for n, g in own.items() if g is not None}, given, what="gradient")
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                if name in given:
                    parameter.sub_(LEARNING_RATE * given[name])
        self.call(index)

    def call_from_two_threads(self, first: int, second: int) -> None:
        """Call the layer twice at once."""
        self.change("eval", first)
        pairs = [self._inputs(first), self._inputs(second)]
        together = in_turns([lambda x=x: outputs(self.module, x) for x in pairs])
        for got, inputs in zip(together, pairs, strict=True):
            self._agree(got, outputs(self._fresh(), inputs))

    def change(self, word: str, index: int) -> None:
        """Move, copy or reload the layer, then call it."""
        if word in ("train", "eval"):
            self.training = word == "train"
            self.module.train(self.training)
        elif word in DTYPES:
            self.dtype = word
            self.module.to(torch_dtype(word))
        elif word == "pickle":
            self.module = pickle.loads(pickle.dumps(self.module))
        elif word == "deepcopy":
            left, self.module = self.module, copy.deepcopy(self.module)
            with torch.no_grad():
                before = [parameter.clone() for parameter in self.module.parameters()]
                for parameter in left.parameters():
                    parameter.add_(1)
            for parameter, value in zip(self.module.parameters(), before, strict=True):
                self.t.agree({"copy": parameter}, {"copy": value}, what="once the original changed")
        else:
            fresh = self._made(0)[0].train(self.training)
            fresh.load_state_dict(self.module.state_dict(), strict=True)
            self.module = fresh
        self.call(index)

    # -- what is compared ----------------------------------------------------------------------

    def _made(self, index: int) -> Made:
        return of_case(self.t, replace(_calls(self.t)[index], dtype=self.dtype))

    def _inputs(self, index: int) -> tuple[Any, ...]:
        key = (index, self.dtype)
        if key not in self.known:
            self.known[key] = self._made(index)
        return self.known[key][1]

    def _fresh(self) -> nn.Module:
        """Return a layer made in this dtype and mode, with the same parameters, never called."""
        module = self._made(0)[0].train(self.training)
        with torch.no_grad():
            for own, value in zip(module.parameters(), self.module.parameters(), strict=True):
                own.copy_(value)
        return module

    def _agree(self, got: Outputs, expected: Outputs) -> None:
        for name, value in got.items():
            same = name not in expected or value.dtype == expected[name].dtype
            self.t.require(same, f"{name}.dtype={value.dtype}, another than in a fresh layer")
        self.t.agree(got, expected, what="beside a fresh layer")


def _calls(t: Trial) -> list[ConvCase]:
    """Return the cases whose inputs a history passes to one layer: sizes, samples, masks."""
    families = t.variant.options.get("mask", ())
    case = holey(t.case) if families and t.case.option("mask", "ones") != "none" else t.case
    other = replace(case, seed=(case.seed + 2) % 2**16)
    masked = other.with_options(mask="bernoulli:0.5") if families else other
    unmasked = other.with_options(mask="none") if "none" in families else other
    return [case, larger(case), masked, unmasked]


def _seeded(module: nn.Module, inputs: tuple[Any, ...]) -> Outputs:
    """Call a layer that may draw noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return outputs(module, inputs)


# -- histories are drawn, and shortened ----------------------------------------------------------


class _Drawn(RuleBasedStateMachine):
    """Draws steps until one fails."""

    def __init__(self, t: Trial, steps: list[Step]) -> None:
        super().__init__()
        self.history, self.steps = History(t), steps

    def _take(self, *step: Any) -> None:
        self.steps.append(step)
        self.history.take(step)

    @rule(index=CALLS, mood=st.sampled_from(list(MOODS)))
    def call(self, index: int, mood: str) -> None:
        self._take("call", index, mood)

    @rule(index=CALLS)
    def learn(self, index: int) -> None:
        self._take("learn", index)

    @rule(word=st.sampled_from(CHANGES), index=CALLS)
    def change(self, word: str, index: int) -> None:
        self._take("change", word, index)

    @rule(first=CALLS, second=CALLS)
    def call_from_two_threads(self, first: int, second: int) -> None:
        self._take("call_from_two_threads", first, second)


def _failure(t: Trial, steps: list[Step]) -> Exception | None:
    history = History(t)
    try:
        for step in steps:
            history.take(step)
    except Exception as error:  # noqa: BLE001 - a layer may raise anything
        return error
    return None


def _shortened(t: Trial, steps: list[Step]) -> list[Step]:
    """Leave out, one by one, the steps without which the rest still fails."""
    for index in reversed(range(len(steps))):
        fewer = steps[:index] + steps[index + 1 :]
        if _failure(t, fewer) is not None:
            steps = fewer
    return steps


def _forgets(t: Trial) -> None:
    steps: list[Step] = []

    @hypothesis.seed(str(t.case))
    def draw() -> _Drawn:
        steps.clear()
        return _Drawn(t, steps)

    settings = hypothesis.settings(
        max_examples=4, stateful_step_count=8, database=None, deadline=None, derandomize=False,
        verbosity=Verbosity.quiet, print_blob=False, report_multiple_bugs=False,
        phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        run_state_machine_as_test(draw, settings=settings)
    except Exception as found:
        steps = _shortened(t, steps)
        error = _failure(t, steps) or found
        told = "; ".join(f"{name}({', '.join(map(str, rest))})" for name, *rest in steps)
        if isinstance(error, Refuted):
            raise Refuted(
                f"after {told}: {error.message}", expected=error.expected, got=error.got
            ) from found
        raise Refuted(f"after {told}: raised {type(error).__name__}: {error}") from found


NO_HISTORY = Law(
    id="G26b",
    name="layer_has_no_history",
    statement="whatever was done to a layer, it computes what a fresh one with its parameters does",
    domain="room for several windows",
    within=roomy,
    check=_forgets,
    of_layers=True,
    ability=Ability.THREADS,
    rounds=True,
    zero_is_right=True,
    share=0.05,
)


def _threads_share(t: Trial) -> None:
    called, _ = evaluated(t)
    pairs = [of_case(t, case)[1] for case in _calls(t)]
    alone = [outputs(called, inputs) for inputs in pairs]
    for both in ((0, 1), (0, 2), (3, 0)):
        # in a layer that was called before, what it makes at its first call is there already
        for word, module in (("in use", called), ("fresh", evaluated(t)[0])):
            together = in_turns([lambda i=i, m=module: outputs(m, pairs[i]) for i in both])
            for got, index in zip(together, both, strict=True):
                t.agree(got, alone[index], what=f"{word}, beside another thread: call {index}")


THREADS_SHARE_A_LAYER = Law(
    id="G28",
    name="threads_share_a_layer",
    statement="two threads call one layer with other sizes and masks, an operation each in turn: "
    "each gets what it gets alone, in its first call too",
    check=_threads_share,
    of_layers=True,
    ability=Ability.THREADS,
    rounds=True,
    zero_is_right=True,
    share=0.2,
)


def _training_follows(t: Trial) -> None:
    for mood in ("inference_mode", "no_grad"):
        module, inputs = evaluated(t)
        with MOODS[mood]():
            outputs(module, inputs)
        fresh, _ = evaluated(t)
        t.agree(outputs(module, inputs), outputs(fresh, inputs), what=f"after a call in {mood}")
        got, expected = (layer_gradients(t, m, inputs) for m in (module, fresh))
        t.agree(got, expected, what=f"gradient after a call in {mood}")


TRAINING_FOLLOWS_INFERENCE = Law(
    id="G29",
    name="training_follows_inference",
    statement="a call in inference_mode or no_grad, then one that learns: as if it were the first",
    check=_training_follows,
    of_layers=True,
    rounds=True,
    zero_is_right=True,
    share=0.3,
)
