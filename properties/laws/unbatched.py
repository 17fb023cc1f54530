"""One signal without an axis for the batch, which torch.nn.ConvNd takes."""

from typing import Any

from torch import Tensor

from harness.check import Outputs, Trial
from harness.law import Law
from harness.tolerance import Bound
from properties.layer_cases import evaluated, outputs, without_noise


def _first(values: Any) -> Any:
    if isinstance(values, Tensor):
        return values[0]
    if isinstance(values, tuple) and not all(isinstance(value, int) for value in values):
        return tuple(map(_first, values))
    return values  # a size


def _unbatched(t: Trial) -> None:
    module, inputs = evaluated(t, **without_noise(t))
    whole = outputs(module, inputs)
    try:
        got: Outputs = outputs(module, tuple(_first(value) for value in inputs))
    except (ValueError, TypeError, RuntimeError) as refused:
        t.require(bool(t.implementation.origin), f"without an axis for the batch: {refused}")
        return
    expected = {name: value[0] for name, value in whole.items()}
    bound = {
        name: Bound(error=2 * b.error[0], tier=b.tier)
        for name, b in t.bound(**without_noise(t)).items()
    }
    t.agree(got, expected, bound, "without an axis for the batch")


TAKES_ONE_SIGNAL = Law(
    id="G35",
    name="takes_or_refuses_an_unbatched_signal",
    statement="a layer called with x[0], masks alike, gives f(x)[0]; one from a plug-in may raise",
    check=_unbatched,
    of_layers=True,
    share=0.2,
    zero_is_right=True,
)
