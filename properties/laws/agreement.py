"""Every implementation says what the definition says, in values and in gradients."""

from harness.check import Trial, expected_dtype
from harness.law import Law


def _values(t: Trial) -> None:
    got = t()
    for name, value in got.items():
        t.require(
            value.dtype == expected_dtype(t.case), f"{name}.dtype={value.dtype}, not {t.case.dtype}"
        )
        t.require(value.device.type == t.device, f"{name}.device={value.device}, not {t.device}")
    t.agree(got, t.truth(), t.bound)


AGREES = Law(
    id="G1",
    name="agrees_with_the_oracle",
    statement="f(x, w, b, ...) = oracle(x, w, b, ...)",
    check=_values,
    about_oracle=False,
    rounds=True,
)


def _gradients(t: Trial) -> None:
    if t.implementation.differentiable:
        t.agree(t.gradients(), t.true_gradients(), t.gradient_bound, "gradient")


GRADIENTS_AGREE = Law(
    id="G1b",
    name="gradients_agree_with_the_oracle",
    statement="d<f, dy>/dt = d<oracle, dy>/dt for every signal, weight and bias t",
    check=_gradients,
    about_oracle=False,
    rounds=True,
)
