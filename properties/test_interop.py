"""Forms in ONNX say what eager says; a case each, since exporting one takes seconds."""

import pytest
import torch

from harness.call import call
from harness.case import CaseError, ConvCase
from harness.check import Refuted, Trial
from harness.mutant import Mutant
from harness.table import load_table
from harness.tensors import each
from harness.variant import Ability, Need, Role, missing
from properties.graphs import Fixed, batched_dims, larger
from properties.masked_cases import twice

pytestmark = pytest.mark.thorough

TABLE = load_table()
# masks per channel, in two groups: what a mask needs most of an exporter
SINGLE = "n2 c4>6 i6x7 k3x3 s2x1 p1x1 g2 float32 contiguous exact seed0"
SAME = "n2 c2>3 i6x7 k3x3 p1x1 float32 contiguous exact seed0"
SOURCES = "n2 c2+1+2+3>4 i5x6 k3x3 p1x1 float32 contiguous exact seed0"
LINES = {
    "plain": SINGLE,
    "input_masked": f"{SINGLE} mask=bernoulli:0.5",
    "window_masked": f"{SINGLE} mask=bernoulli:0.5",
    "kernel_masked": f"{SINGLE} mask=bernoulli:0.5 kernel_mask=cross bias_where=support",
    "partial": f"{SINGLE} mask=bernoulli:0.5",
    "masked": f"{SINGLE} mask=bernoulli:0.5",
    "multi_source": SOURCES,
    "tile_concat": SOURCES,
    "diff": SAME,
    "boundary": f"{SAME} method=replicate",
}
FORMS = [
    pytest.param(name, implementation, id=f"{name}-{implementation.name}")
    for name, variant in TABLE.variants.items()
    for implementation in variant.implementations
    if Need.COMPILER not in implementation.needs and not implementation.origin
]


def _trial(variant, implementation, line):
    case = implementation.within(ConvCase.parse(line))
    return Trial(variant, implementation, case, variants=TABLE.variants)


def _hidden(t):
    """Return the masks over the signal, nothing present in the first sample."""
    masks = {arg.name for arg in t.variant.args if arg.role is Role.MASK and arg.covers == "x"}
    return {
        name: each(t.tensors[name], lambda m: m.index_fill(0, torch.tensor([0]), 0))
        for name in masks
    }


def _agrees_in_onnx(t):
    """Export from one number of samples, run with another, one of them without a present pixel."""
    if reason := missing([Need.ONNX]):
        pytest.skip(reason)
    import onnxruntime

    module, other = Fixed(t), larger(t)
    masks = _hidden(other)
    other.tensors.update(masks)
    inputs, given = module.inputs(t), module.inputs(other)
    dims = batched_dims(inputs, t.case.n, torch.export.Dim("batch", min=2))
    program = torch.onnx.export(
        module, tuple(inputs.values()), dynamo=True, dynamic_shapes=dims, verbose=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    arrays = [value.contiguous().numpy() for value in given.values()]
    results = session.run(None, dict(zip(names, arrays, strict=True)))
    got = module.named(tuple(torch.from_numpy(result) for result in results), t)
    t.agree(got, other(), twice(other.bound(**masks)), "ONNX")


@pytest.mark.filterwarnings("ignore")  # the exporter's own warnings are not ours to mend
@pytest.mark.parametrize(("name", "implementation"), FORMS)
def test_onnx_form_agrees(name, implementation, profile_name):
    variant = TABLE.variant(name)
    case = ConvCase.parse(LINES[name])
    first = next(
        form for form in variant.implementations
        if form is not variant.reference and form.within(case) == case
    )  # fmt: skip
    if profile_name not in {"deep", "soak"} and implementation is not first:
        pytest.skip("exported under --hypothesis-profile deep only")
    if reason := implementation.lacks.get(Ability.ONNX):
        pytest.skip(reason)
    _agrees_in_onnx(_trial(variant, implementation, LINES[name]))


def _epsilon_in_the_ratio(right):
    """As NVIDIA/partialconv divides: by a coverage that a small number keeps away from 0."""

    def wrong(x, weight, bias, mask, **keywords):
        result = right(x, weight, bias, mask, **keywords)
        positive = result.mask + 1e-8
        return result._replace(output=result.output * (positive / positive))

    return wrong


@pytest.mark.filterwarnings("ignore")
def test_epsilon_that_the_exporter_drops_is_refuted():
    mutant = Mutant(name="epsilon_in_the_ratio", variant="partial", spoil=_epsilon_in_the_ratio)
    variant, wrong = mutant.plant(TABLE.variant("partial"))
    with pytest.raises(Refuted, match="ONNX: output differs"):
        _agrees_in_onnx(_trial(variant, wrong, LINES["partial"]))


def test_every_variant_has_an_exported_case():
    assert set(LINES) == set(TABLE.variants)


# -- signals that torch itself treats oddly ------------------------------------------------------


@pytest.mark.parametrize("name", LINES)
def test_signal_without_channels_is_refused(name):
    # torch.nn.functional.conv2d makes an output without channels of it, whatever the weight says
    variant = TABLE.variant(name)
    t = _trial(variant, variant.reference, LINES[name])
    none = {"x": each(t.tensors["x"], lambda v: v[:, :0])}
    weight = t.tensors["weight"]
    none["weight"] = each(weight, lambda w: w[:, :0])
    arguments = {**t.tensors, **none}
    with pytest.raises(CaseError, match=r"channel|c_in"):
        call(variant, tuple(arguments.values()), **t.keywords)
