"""What the drop-in layers share: parameters of `torch.nn.ConvNd`, calls of the functional form."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _LazyConvXdMixin
from torch.nn.parameter import UninitializedParameter

from harness.api import (
    CaseError,
    ConvCase,
    Explained,
    Explanation,
    Inquiry,
    LayerForm,
    Value,
    name_arguments,
)
from impls._shared.sources import source_axes

Size = int | Sequence[int]


class ConvLayer:
    """Mixed into a subclass of `torch.nn.ConvNd`, whose parameters and keys stay as they are.

    Args:
        implementation: Pins one implementation by name; None lets every call take the fastest.
    """

    shown: tuple[str, ...] = ()
    """Attributes beyond those of `torch.nn.ConvNd` that `extra_repr` tells."""
    when_converted: Mapping[str, Any] = {}
    """Arguments of the constructor that take the place of its defaults in `impls.convert`."""

    def __init__(self, *args: Any, implementation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.implementation = implementation

    def geometry(self) -> dict[str, Any]:
        """Return the keyword arguments of the functional form that every layer has."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "implementation": self.implementation,
        }

    @classmethod
    def arguments_like(cls, module: Any) -> dict[str, Any]:
        """Return the constructor's arguments for the geometry of `module`, a `torch.nn.ConvNd`.

        Raises:
            CaseError: this layer does not compute it.
        """
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        return {name: getattr(module, name) for name in names}

    def finish_conversion(self) -> None:
        """Fill, from the weight, the parameters that a trained `torch.nn.ConvNd` does not have."""

    def chosen(self, *inputs: Any, **named: Any) -> Explanation:
        """Return which implementation a call with these arguments takes, and why.

        Nothing is computed. Printed, the answer tells what is said of every implementation.
        """
        # a twin asks: another thread may be calling the layer itself
        twin = type(self).__new__(type(self))
        question = Inquiry(self.implementation)
        twin.__dict__.update(self.__dict__, implementation=question, training=False)
        try:
            twin.forward(*inputs, **named)
        except Explained as answer:
            return answer.explanation
        raise CaseError(f"{type(self).__name__} calls no functional form")

    def extra_repr(self) -> str:
        """Return the constructor's arguments."""
        told = [f"{name}={getattr(self, name)!r}" for name in self.shown]
        pinned = [f"implementation={self.implementation!r}"] if self.implementation else []
        return ", ".join([super().extra_repr(), *told, *pinned])


RETURNS = (True, None, False)


class PairLayer(ConvLayer):
    """Mixed into a layer that computes an output and the mask for the next layer.

    Args:
        return_mask: True returns the pair; False the output alone; None the pair where the call
            gives a mask, so that a call without one returns what `torch.nn.ConvNd` does.
    """

    shown = ("return_mask",)
    when_converted: Mapping[str, Any] = {"return_mask": None}

    def __init__(self, *args: Any, return_mask: bool | None = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if return_mask not in RETURNS:
            raise CaseError(f"return_mask={return_mask!r} must be True, False or None")
        self.return_mask = return_mask

    def returned(self, pair: Any, mask: Tensor | None) -> Any:
        """Return of `(output, mask)` what a call with `mask` returns."""
        both = mask is not None if self.return_mask is None else self.return_mask
        return pair if both else pair.output


class LazyConvLayer(_LazyConvXdMixin):
    """Mixed in before a layer: `in_channels` is learned at the first call."""

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        factory = {"device": device, "dtype": dtype}
        # No bias here: its tensor would be replaced below.
        super().__init__(
            0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode,
            **factory, **kwargs,
        )  # fmt: skip
        self.weight = UninitializedParameter(**factory)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(**factory)

    def initialize_parameters(self, x: Any, *_: Any, **__: Any) -> None:
        """Shape every parameter after the channels of a call's signal, given by place or name."""
        super().initialize_parameters(x)
        # a state that was loaded before the first call has the shapes, but leaves this at 0
        self.in_channels = self.weight.shape[1] * self.groups

    def _get_num_spatial_dims(self) -> int:
        return len(self.kernel_size)


# -- the layer of a case -------------------------------------------------------------------------

Arguments = Callable[[ConvCase, Mapping[str, Value]], dict[str, Any]]


def padding_of(case: ConvCase, _: Mapping[str, Value]) -> dict[str, Any]:
    """Return the arguments of a constructor that pads by a mode."""
    return {"padding": case.padding, "padding_mode": case.option("padding_mode", "zeros")}


def layer_form(
    *classes: Callable[..., nn.Module],
    arguments: Arguments = padding_of,
    state: Sequence[str] = ("weight", "bias"),
    takes: Sequence[str] = (),
) -> LayerForm:
    """Return how the layer of a case is made; a parameter given as None keeps its initial value.

    Args:
        classes: The layers for 1, 2 and 3 axes.
        arguments: Constructor arguments that not every layer has.
        state: The tensor arguments that the layer holds under their own names.
        takes: The tensor arguments of a call after the signal.
    """

    def form(case: ConvCase, tensors: Mapping[str, Value]) -> tuple[nn.Module, tuple[Any, ...]]:
        x = tensors["x"]
        sources = x if isinstance(x, tuple) else (x,)
        place = next(source for source in sources if source is not None)
        layer = classes[case.spatial_dims - 1](
            case.sources or case.c_in, case.c_out, case.kernel_size, stride=case.stride,
            dilation=case.dilation, groups=case.groups, bias=case.bias, device=place.device,
            dtype=place.dtype, **arguments(case, tensors),
        )  # fmt: skip
        held = {name: tensors[name] for name in state}
        if isinstance(held["weight"], tuple):  # one weight per source
            held |= zip(layer.weight_names(), held["weight"], strict=True)
        known = {name: value for name, value in held.items() if value is not None}
        layer.load_state_dict(known, strict=False)
        inputs = (*sources, *(tensors[name] for name in takes))
        if _size_is_untold(case):
            name_arguments(layer, len(inputs), ("size",))
            inputs = (*inputs, case.in_size)
        return layer, inputs

    return form


def _size_is_untold(case: ConvCase) -> bool:
    """Whether some axis is spanned by no source."""
    if not case.sources:
        return False
    spans = zip(case.sources, source_axes(case.spatial_dims), strict=True)
    return len({axis for channels, axes in spans if channels for axis in axes}) < case.spatial_dims
