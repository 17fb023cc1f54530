"""Parameters of layers: their state, their first values, and what acts on them from outside."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tensors import leaves
from harness.variant import Role, Trait, Value
from properties.layer_cases import LEARNT, evaluated, outputs, parameter_names, roomy

PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def _plain_twin(t: Trial, module: nn.Module) -> nn.Module | None:
    """Return torch's layer of the case, where `module` is one with its parameters alone."""
    case, plain = t.case, PLAIN[t.case.spatial_dims]
    shapes = {name: tuple(value.shape) for name, value in leaves(_learnt(t)).items()}
    own = {"weight": case.weight_shape} | ({"bias": (case.c_out,)} if case.bias else {})
    if not isinstance(module, plain) or shapes != own:
        return None
    return plain(
        case.c_in, case.c_out, case.kernel_size, case.stride, groups=case.groups, bias=case.bias,
        dilation=case.dilation, device=t.device, dtype=getattr(torch, case.dtype),
    )  # fmt: skip


def _learnt(t: Trial) -> dict[str, Value]:
    return {name: t.tensors[name] for name in t.names(*LEARNT)}


def _state_restores(t: Trial) -> None:
    module, inputs = evaluated(t)
    other, _ = evaluated(t, **{name: t.another(name) for name in t.names(*LEARNT)})
    state = module.state_dict()
    plain = _plain_twin(t, module)
    if plain is not None:
        shapes = [{k: v.shape for k, v in s.items()} for s in (state, plain.state_dict())]
        t.require(shapes[0] == shapes[1], f"its state is {shapes[0]}, torch's {shapes[1]}")
        plain.load_state_dict(state, strict=True)
        state = plain.state_dict()
    other.load_state_dict(state, strict=True)
    t.agree(outputs(other, inputs), outputs(module, inputs), what="with the state loaded")


STATE_RESTORES_THE_LAYER = Law(
    id="G39",
    name="state_restores_the_layer",
    statement="a layer with the state of another computes the same; a torch.nn.ConvNd with its "
    "parameters alone has the keys and shapes of torch's, and loads either way, strictly",
    check=_state_restores,
    of_layers=True,
    rounds=True,
    share=0.3,
)


def _starts_as_torch_does(t: Trial) -> None:
    made: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(t.case.seed)
            made.append(t.layer(**dict.fromkeys(_learnt(t)))[0])
        torch.manual_seed(t.case.seed)
        plain = _plain_twin(t, made[0])
    for other in (made[1], plain):
        if other is not None:
            expected = dict(other.named_parameters())
            t.agree(dict(made[0].named_parameters()), expected, what="from the same seed")


STARTS_AS_TORCH_DOES = Law(
    id="G44",
    name="starts_as_torch_does",
    statement="the same seed gives the same first parameters, and those of torch's layer where "
    "the layer is a torch.nn.ConvNd with its parameters alone",
    domain="float32: in another dtype a layer that is made and then moved draws other numbers",
    check=_starts_as_torch_does,
    of_layers=True,
    dtypes=("float32",),
    rounds=True,
    share=0.3,
)


# -- what acts on parameters from outside --------------------------------------------------------


class _Halved(nn.Module):
    """Halves a parameter, exactly."""

    def forward(self, value: Tensor) -> Tensor:
        return value / 2


def _pruned(owner: nn.Module, name: str) -> None:
    value = getattr(owner, name)
    kept = torch.arange(value.numel(), device=value.device).view_as(value) % 2
    prune.custom_from_mask(owner, name, kept)


CHANGES: dict[str, Any] = {
    "a parametrization": lambda o, n: parametrize.register_parametrization(o, n, _Halved()),
    "pruning": _pruned,
    "weight_norm": parametrizations.weight_norm,
}


def _acts(t: Trial) -> None:
    names = parameter_names(t)
    for word, change in CHANGES.items():
        for argument, path in names.items():
            module, inputs = evaluated(t)
            owner_path, _, name = path.rpartition(".")
            owner = module.get_submodule(owner_path)
            if word == "weight_norm" and getattr(owner, name).dim() < 2:
                continue
            change(owner, name)
            fresh, _ = evaluated(t, **_with_leaf(t, argument, getattr(owner, name).detach()))
            t.agree(outputs(module, inputs), outputs(fresh, inputs), what=f"{word} of {path}")


def _with_leaf(t: Trial, leaf: str, value: Tensor) -> dict[str, Value]:
    """Return the argument that holds `leaf`, `weight[1]` or `weight`, with `value` there."""
    name, _, place = leaf.removesuffix("]").partition("[")
    own = t.tensors[name]
    if not isinstance(own, tuple):
        return {name: value}
    return {name: tuple(value if str(i) == place else part for i, part in enumerate(own))}


def _hooks_act(t: Trial) -> None:
    module, inputs = evaluated(t)
    seen: list[str] = []
    module.register_forward_pre_hook(lambda *_: seen.append("before"))
    module.register_forward_hook(lambda *_: seen.append("after"))
    outputs(module, inputs)
    t.require(seen == ["before", "after"], f"of its two hooks, these ran: {seen}")


def _acts_from_outside(t: Trial) -> None:
    _acts(t)
    _hooks_act(t)


ACTS_FROM_OUTSIDE = Law(
    id="K12b",
    name="parametrizations_and_hooks_act",
    statement="with torch's parametrize, prune or weight_norm on a parameter, a layer computes "
    "what it does with the parameter that they give; its hooks run",
    check=_acts_from_outside,
    of_layers=True,
    rounds=True,
    zero_is_right=True,
    share=0.1,
)


# -- learning ------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, Any] = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, 2.0**-6, momentum=0.5),
    "Adam": lambda p: torch.optim.Adam(p, 2.0**-6),
    "AdamW": lambda p: torch.optim.AdamW(p, 2.0**-6, weight_decay=0.5),
}
STEPS = 3


def _some_taps_masked(case: ConvCase) -> ConvCase:
    """Mask some taps, and let every tap meet the image."""
    masked = case.option("kernel_mask", "ones") != "ones"
    return roomy(case if masked else case.with_options(kernel_mask="checkerboard"))


def _masked_taps_learn_nothing(t: Trial) -> None:
    mask = t.tensors["kernel_mask"]
    assert isinstance(mask, Tensor)
    for word, optimizer in OPTIMIZERS.items():
        module, inputs = t.layer()
        held = {name: value.clone() for name, value in module.named_buffers()}
        steps = optimizer(module.parameters())
        for _ in range(STEPS):
            steps.zero_grad()
            outputs(module, inputs)["output"].square().mean().backward()
            steps.step()
        t.agree(dict(module.named_buffers()), held, what=f"after {word}")
        state = {n: p.detach() for n, p in module.named_parameters()}
        got = outputs(module, inputs)
        names = parameter_names(t)
        weight = state[names["weight"]]
        state = {argument: state[name] for argument, name in names.items()}
        garbage = torch.where((mask == 0).expand_as(weight), 8.0, weight)
        fresh, _ = t.layer(**{**state, "weight": garbage})
        t.agree(got, outputs(fresh, inputs), what=f"other weights at masked taps after {word}")


MASKED_TAPS_STAY_MASKED = Law(
    id="K9",
    name="masked_taps_stay_masked",
    statement="after steps of SGD with momentum, Adam and AdamW with weight decay the mask is the "
    "same, and whatever stands at masked taps does nothing",
    domain="some taps masked",
    requires=frozenset({Trait.MASKS_TAPS}),
    within=_some_taps_masked,
    check=_masked_taps_learn_nothing,
    of_layers=True,
    rounds=True,
    zero_is_right=True,
    share=0.1,
)


def _drawing(case: ConvCase) -> ConvCase | None:
    # other methods draw nothing; an image too small for the statistics of its sides cannot
    return case if case.option("method", "zeros") == "random" else None


def _noise_is_for_training(t: Trial) -> None:
    t.require(bool(t.names(Role.NOISE)), "the case has no noise")
    module, inputs = evaluated(t)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(t.case.seed)
        before = torch.get_rng_state()
        first = outputs(module, inputs)
        t.require(bool(torch.get_rng_state().equal(before)), "it draws numbers in evaluation")
        t.agree(outputs(module, inputs), first, what="evaluated again")
        drawn = []
        for _ in range(2):
            torch.manual_seed(t.case.seed)
            drawn.append(outputs(module.train(), inputs))
        t.agree(*drawn, what="drawn again from the same seed")


NOISE_IS_FOR_TRAINING = Law(
    id="B4b",
    name="noise_is_drawn_in_training_alone",
    statement="in evaluation a layer draws no number; in training the same seed gives the same",
    domain="method=random",
    requires=frozenset({Trait.CHOOSES_BOUNDARY}),
    within=_drawing,
    check=_noise_is_for_training,
    of_layers=True,
    rounds=True,
    zero_is_right=True,
    share=0.2,
)
