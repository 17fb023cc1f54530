"""Networks that carry a mask: every sample alone, holes invisible, chains of any layers."""

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import impls
from harness.case import CaseError
from impls import MaskedSequential, Pointwise
from impls.boundary import BoundaryConv2d
from impls.input_masked import InputMaskedConv1d, InputMaskedConv2d, InputMaskedConv3d
from impls.kernel_masked import KernelMaskedConv1d, KernelMaskedConv2d, KernelMaskedConv3d
from impls.masked import LazyMaskedConv2d, MaskedConv1d, MaskedConv2d, MaskedConv3d
from impls.partial import PartialConv2d
from impls.plain import PlainConv1d, PlainConv2d, PlainConv3d

CONVOLUTIONS = {
    1: (InputMaskedConv1d, KernelMaskedConv1d, MaskedConv1d, PlainConv1d, nn.Conv1d),
    2: (InputMaskedConv2d, KernelMaskedConv2d, MaskedConv2d, PlainConv2d, nn.Conv2d),
    3: (InputMaskedConv3d, KernelMaskedConv3d, MaskedConv3d, PlainConv3d, nn.Conv3d),
}
C = 4


@st.composite
def _layers(draw, rank):
    kind = draw(st.sampled_from(("convolution", "convolution", "pointwise", "norm", "pool")))
    if kind == "convolution":
        cls, k, d = (
            draw(st.sampled_from(CONVOLUTIONS[rank])),
            draw(st.sampled_from((1, 3))),
            draw(st.sampled_from((1, 2))),
        )
        given = {"apply_mask": True} if "MaskedConv" in cls.__name__[:10] else {}
        padding = draw(st.sampled_from((d * (k - 1) // 2, "same")))
        stride = 1 if padding == "same" else draw(st.sampled_from((1, 2)))
        return cls(C, C, k, stride, padding, d, draw(st.sampled_from((1, 2))), **given)
    if kind == "pointwise":
        return draw(st.sampled_from((nn.Sigmoid, nn.ReLU, nn.Identity, nn.PReLU)))()
    if kind == "norm":
        norm = getattr(impls, f"MaskedBatchNorm{rank}d")(C)
        nn.init.uniform_(norm.bias)
        return norm
    # torch's avg_pool3d takes no image smaller than its kernel, whatever ceil_mode says
    kinds = st.sampled_from(("Max", "Avg") if rank < 3 else ("Max",))
    pool = getattr(impls, f"Masked{draw(kinds)}Pool{rank}d")
    return pool(2, ceil_mode=True)


@st.composite
def _networks(draw):
    """Draw a network of layers that serve diverse sizes, samples, and their padded batch."""
    rank = draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 999)))
    layers = [draw(_layers(rank)) for _ in range(draw(st.integers(1, 4)))]
    net = MaskedSequential(*layers).double().eval()
    sizes = [[draw(st.integers(1, 7)) for _ in range(rank)] for _ in range(draw(st.integers(1, 3)))]
    samples = [torch.randn(1, C, *size, dtype=torch.float64) for size in sizes]
    whole = [max(axis) + draw(st.integers(0, 2)) for axis in zip(*sizes, strict=True)]
    x = torch.full((len(samples), C, *whole), draw(st.sampled_from((0.0, 7.0, float("nan")))))
    x, mask = x.double(), torch.zeros(len(samples), 1, *whole, dtype=torch.float64)
    for i, sample in enumerate(samples):
        box = (i, slice(None), *map(slice, sample.shape[2:]))
        x[box], mask[box] = sample[0], 1
    return net, samples, x, mask


@settings(max_examples=150, deadline=None)
@given(_networks())
def test_every_sample_of_a_padded_batch_gives_what_it_gives_alone(made):
    net, samples, x, mask = made
    y, seen = net(x, mask)
    for i, sample in enumerate(samples):
        alone, _ = net(sample, torch.ones_like(sample[:, :1]))
        box = (i, slice(None), *map(slice, alone.shape[2:]))
        torch.testing.assert_close(y[box], alone[0])
        assert (seen.expand(-1, C, *seen.shape[2:])[box] == 1).all()
        assert seen[i, 0].sum() == alone[0, 0].numel()
    assert not y[(seen == 0).expand_as(y)].any()
    assert torch.isfinite(y).all()


@settings(max_examples=60, deadline=None)
@given(_networks())
def test_gradients_of_a_padded_batch_are_those_of_its_samples(made):
    net, samples, x, mask = made
    y, _ = net(x.requires_grad_(), mask)
    y.square().sum().backward()
    got = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    for i, sample in enumerate(samples):
        sample.requires_grad_()
        net(sample, torch.ones_like(sample[:, :1])).output.square().sum().backward()
        box = (i, slice(None), *map(slice, sample.shape[2:]))
        torch.testing.assert_close(x.grad[box], sample.grad[0])
    assert not x.grad[(mask == 0).expand_as(x)].any()
    for name, parameter in net.named_parameters():
        if name in got:
            torch.testing.assert_close(got[name], parameter.grad)


def test_a_chain_of_partial_layers_takes_the_shared_mask_that_each_returns():
    torch.manual_seed(0)
    made = [(PartialConv2d(3, C, 3), PartialConv2d(C, 6, 3, 2)) for _ in range(2)]
    for layer in made[1]:
        layer.multi_channel = False
    own, shared = (MaskedSequential(*layers) for layers in made)
    shared.load_state_dict(own.state_dict())
    x, mask = torch.randn(2, 3, 9, 9), (torch.rand(2, 1, 9, 9) < 0.3).float()
    y, seen = own(x, mask.expand(-1, 3, -1, -1))
    other, known = shared(x, mask)
    torch.testing.assert_close(y, other)
    assert seen.equal(known)
    assert seen.shape == (2, 1, 3, 3)


def test_masks_per_channel_stay_so_through_groups():
    net = MaskedSequential(
        PartialConv2d(4, 4, 3, groups=2), nn.ReLU(), PartialConv2d(4, 2, 1, groups=2)
    )
    mask = torch.zeros(1, 4, 5, 5)
    mask[:, :2] = 1
    y, seen = net(torch.randn(1, 4, 5, 5), mask)
    assert seen[:, 0].all()
    assert not seen[:, 1].any()
    y, seen = MaskedSequential(nn.Conv2d(4, 4, 3, groups=2))(torch.randn(1, 4, 5, 5), mask)
    assert seen[:, :2].all()
    assert not y[:, 2:].any()
    assert MaskedSequential(nn.Conv2d(4, 4, 3))(torch.randn(1, 4, 5, 5), mask).mask.shape[1] == 1


def _network():
    torch.manual_seed(0)
    return MaskedSequential(
        PartialConv2d(3, C, 3, padding=1), impls.MaskedBatchNorm2d(C), nn.Sequential(nn.ReLU(), nn.Dropout(0.1)),
        impls.MaskedMaxPool2d(2), LazyMaskedConv2d(C, 3, padding=1, apply_mask=True), nn.Upsample(scale_factor=2),
        Pointwise(nn.Tanh()), impls.MaskedMean(),
    )  # fmt: skip


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MASK = (torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def test_training_sees_nothing_of_the_holes():
    net = _network()
    net(X, MASK)
    twin = copy.deepcopy(net)
    for model, x in ((net, X * MASK), (twin, X.masked_fill(MASK == 0, float("nan")))):
        torch.manual_seed(1)
        model(x, MASK).output.sum().backward()
    for own, other in itertools.zip_longest(net.parameters(), twin.parameters()):
        assert torch.equal(own.grad, other.grad)
    for own, other in itertools.zip_longest(net.buffers(), twin.buffers()):
        assert torch.equal(own, other)


def test_a_network_is_copied_pickled_exported_and_compiled():
    net = _network()
    net(X, MASK)
    net.eval()
    expected = net(X, MASK).output
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other(X, MASK).output.equal(expected)
    exported = torch.export.export(net, (X, MASK)).module()
    torch.testing.assert_close(exported(X, MASK)[0], expected)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(X, MASK)[0], expected)


@pytest.mark.filterwarnings("ignore")  # the exporter's own warnings are not ours to mend
def test_a_network_computes_the_same_in_onnx():
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = _network()
    net(X, MASK)
    net.eval()
    mask = MASK.index_fill(0, torch.tensor([0]), 0)  # nothing of a sample is present
    model = torch.onnx.export(net, (X, mask), dynamo=True, verbose=False).model_proto
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    results = session.run(None, dict(zip(names, (X.numpy(), mask.numpy()), strict=True)))
    for got, expected in zip(results, net(X, mask), strict=True):
        torch.testing.assert_close(torch.from_numpy(got), expected)


def test_channels_last_stays():
    net = _network()
    net(X, MASK)
    x = X.to(memory_format=torch.channels_last)
    for mask in (MASK[:, :1].expand_as(X), MASK.to(memory_format=torch.channels_last)):
        for end in range(1, 8):
            y, _ = net[:end](x, mask)
            assert y.is_contiguous(memory_format=torch.channels_last), net[end - 1]


def test_without_a_mask_it_is_the_row_of_its_modules_with_their_keys():
    torch.manual_seed(0)
    modules = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 2, 1)),
        nn.Upsample(scale_factor=2),
    ]
    net, plain = MaskedSequential(*modules), nn.Sequential(*modules)
    assert list(net.state_dict()) == list(plain.state_dict())
    y, mask = net(X)
    assert mask is None
    assert y.equal(plain(X))


def test_every_module_may_stand_in_it_that_returns_a_signal_and_a_mask():
    class Own(nn.Module):
        def forward(self, x, mask):
            return x + 1, mask

    class Flips(nn.Module):
        def forward(self, x):
            return x[..., :1]

    y, _ = MaskedSequential(Own(), nn.ReLU())(X, MASK)
    assert not y[MASK == 0].any()
    with pytest.raises(CaseError, match="does not act on every position alone"):
        Pointwise(Flips())(X, MASK)


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.Flatten(), nn.Softmax(1), nn.ConvTranspose2d(3, 3, 2),
        nn.Upsample(scale_factor=2, mode="bilinear"), BoundaryConv2d(3, 3, 3),
    ],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_modules_that_mix_positions_are_refused(module):
    with pytest.raises(
        CaseError, match=r"^1=.* takes no mask and mixes positions: take the module"
    ):
        MaskedSequential(nn.ReLU(), module)
    late = MaskedSequential(nn.ReLU()).append(nn.Sequential(module))
    with pytest.raises(CaseError, match=r"^1.0=.* takes no mask and mixes positions"):
        late(X, MASK)
