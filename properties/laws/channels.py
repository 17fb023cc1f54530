"""Channels, groups and the bias: what must not depend on the order in which channels come."""

from dataclasses import replace

from harness.case import ConvCase
from harness.check import Trial
from harness.law import Law
from harness.tolerance import Bound
from harness.variant import Role, Trait, Value
from properties import moves

# -- bias --------------------------------------------------------------------------------------


def _with_bias(case: ConvCase) -> ConvCase:
    return replace(case, bias=True).with_options(bias_where=None)


def _bias_is_added(t: Trial) -> None:
    names = t.names(Role.BIAS)
    none: dict[str, Value] = dict.fromkeys(names)
    same: dict[str, Value] = {n: t.tensors["bias"] for n in names if n != "bias"}
    with_bias, without = t(**same), t(**none)
    term = t.wide("bias").view(-1, *(1 for _ in t.case.in_size))
    bounds = {name: t.bound(**same)[name] + t.bound(**none)[name] for name in with_bias}
    share = with_bias.get("mask")
    if share is not None:
        both, own = bounds["output"], bounds["mask"]
        bounds["output"] = both + Bound(error=own.error * term.abs(), tier=own.tier)
        term = term * share.double().cpu()
    expected = {**without, "output": without["output"].double().cpu() + term}
    t.agree(with_bias, expected, bounds)


BIAS_IS_ADDED = Law(
    id="G6",
    name="bias_is_added",
    statement="f(x, w, b) = f(x, w, 0) + b, times m' where there is such",
    domain="a bias that is added everywhere, the same one at the border",
    requires=frozenset({Trait.ADDS_BIAS}),
    within=_with_bias,
    share=0.5,
    check=_bias_is_added,
)


# -- order -------------------------------------------------------------------------------------


def _several_channels(case: ConvCase) -> ConvCase:
    """Give every group two filters, and two channels unless they come in sources."""
    c_out = max(case.c_out, 2 * case.groups)
    c_in = case.c_in if case.sources else max(case.c_in, 2 * case.groups)
    return replace(case, c_in=c_in, c_out=c_out)


def _channels_are_equal(t: Trial) -> None:
    own = t()
    for what in ("filters", "channels", "groups"):
        moves.commutes(t, own, moves.permute_channels(t, **{what: 1}), f"{what} in another order")


CHANNELS_ARE_EQUAL = Law(
    id="G8",
    aliases=("K15",),
    name="channels_have_no_order",
    statement="f(x, Pw, Pb) = P f(x, w, b); f(Qx, wQ, b) = f(x, w, b), P and Q within groups, or of them",
    requires=frozenset({Trait.CHANNELS_ARE_EQUAL}),
    within=_several_channels,
    check=_channels_are_equal,
)


# -- groups ------------------------------------------------------------------------------------


def _grouped(case: ConvCase) -> ConvCase:
    if case.groups > 1:
        return case
    sources = tuple(2 * channels for channels in case.sources)
    return replace(case, groups=2, c_in=2 * case.c_in, c_out=2 * case.c_out, sources=sources)


def _groups_are_apart(t: Trial) -> None:
    whole, bound = t(), t.bound()
    for group in range(t.case.groups):
        move = moves.of_group(t, group)
        expected = moves.moved_outputs(t, whole, move)
        alone = t.called({"groups": 1}, **moves.moved(t, move))
        # filters that see the same channels may share one mask
        got = {
            name: value.expand(-1, expected[name].shape[1], *value.shape[2:])
            for name, value in alone.items()
        }
        t.agree(got, expected, moves.moved_bounds(t, bound, move), f"group {group} alone")


GROUPS_ARE_APART = Law(
    id="G9",
    aliases=("P13", "S13"),
    name="groups_are_convolutions_apart",
    statement="f(x, w, b; G) = concat_g f(x of group g, w of group g, b of group g; 1)",
    domain="two groups or more, one channel each (depthwise) too",
    requires=frozenset({Trait.GROUPS_ARE_APART}),
    within=_grouped,
    check=_groups_are_apart,
)
