"""An implementation as the module that torch's compilers and exporters take."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from harness.case import ConvCase
from harness.check import Outputs, Trial, as_outputs
from harness.tensors import leaves
from harness.variant import Role


def several_samples(case: ConvCase) -> ConvCase:
    """Take two samples at least: torch treats a batch of one apart."""
    return replace(case, n=max(case.n, 2))


def larger(t: Trial, more: int = 1) -> Trial:
    """Return the trial of the same case with `more` samples: the same weights and other signals."""
    return beside(t, replace(t.case, n=t.case.n + more))


def beside(t: Trial, case: ConvCase) -> Trial:
    """Return a trial of the same callable, with all that it remembers, on another case."""
    other = Trial(t.variant, t.implementation, case, t.device, t.variants)
    other.function = t.function
    return other


class Fixed(nn.Module):
    """The trial's function of what comes with the batch; all else is held in buffers.

    Of a layer it is the layer itself: its functional form makes one anew in every call.

    Args:
        t: The trial.
    """

    def __init__(self, t: Trial) -> None:
        super().__init__()
        self.function, self.keywords = t.function, t.keywords
        self.layer, called = t.layer() if t.implementation.layer else (None, ())
        roles = {arg.name: arg for arg in t.variant.args}
        self.moving = [
            name for name, arg in roles.items()
            if arg.role in (Role.SIGNAL, Role.NOISE) or arg.covers == t.variant.args[0].name
        ]  # fmt: skip
        self.shape: dict[str, Any] = {}
        for name, value in t.tensors.items():
            several = isinstance(value, tuple)
            parts = value if several else (value,)
            self.shape[name] = [part is not None for part in parts], several
            if name not in self.moving and self.layer is None:
                for i, part in enumerate(parts):
                    self.register_buffer(f"{name}_{i}", part)
        places = {
            id(part): (number, i)
            for number, value in enumerate(t.tensors.values())
            for i, part in enumerate(value if isinstance(value, tuple) else (value,))
            if part is not None
        }
        self.called = [places.get(id(value)) for value in called]

    def inputs(self, t: Trial) -> dict[str, Tensor]:
        """Return what `forward` takes of a trial that differs from this one by its batch alone."""
        return leaves({name: t.tensors[name] for name in self.moving})

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, absent ones left out."""
        rest = iter(given)
        arguments: list[tuple[Tensor | None, ...]] = []
        for name, (held, _) in self.shape.items():
            parts = tuple(
                (next(rest) if name in self.moving else getattr(self, f"{name}_{i}", None))
                if one
                else None
                for i, one in enumerate(held)
            )
            arguments.append(parts)
        if self.layer is not None:
            found = [None if at is None else arguments[at[0]][at[1]] for at in self.called]
            return tuple(as_outputs(self.layer(*found)).values())
        kinds = [several for _, several in self.shape.values()]
        values = [p if several else p[0] for p, several in zip(arguments, kinds, strict=True)]
        return tuple(as_outputs(self.function(*values, **self.keywords)).values())

    def named(self, values: tuple[Tensor, ...], t: Trial) -> Outputs:
        """Return `values` by the names of the trial's outputs."""
        return dict(zip(t(), values, strict=True))


def batched_dims(inputs: dict[str, Tensor], n: int, dim: Any) -> tuple[tuple[Any, ...]]:
    """Return the dynamic shapes of `inputs`: `dim` where there is an entry per sample."""
    return (tuple({0: dim} if value.shape[0] == n else None for value in inputs.values()),)
