"""The adapters of published code: a clear line without a checkout, a verdict with one."""

import sys
from pathlib import Path

import pytest

from harness.case import ConvCase
from harness.results import Outcome
from harness.search import replay
from harness.table import load_table

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "plugins"
ADAPTERS = {
    "nvidia_partialconv": "PARTIALCONV_PATH",
    "masked_torch": "MASKED_TORCH_PATH",
    "multi_source_convolution": "MSCONV_PATH",
    "tile_and_concatenate": "MSCONV_PATH",
    "differential_conv2d": "DIFFCONV2D_PATH",
    "differential_boundary": "DIFFCONV2D_PATH",
}
MODULES = ("models", "masked_torch", "msconv2d", "tile_concat", "diff_conv2d")

# Checkouts in miniature: the published names over this project's own code.
COUNTED = """
from impls import masked, partial

def published(base):
    class Published(base):
        def __init__(self, *args, multichannel=False, return_mask=True, **kwargs):
            super().__init__(*args, **{"multi_channel": multichannel, **kwargs})

        def forward(self, x, mask=None):
            return tuple(super().forward(x, mask))

    return Published
"""
SOURCES = """
from torch import nn
from impls.multi_source import functional

class MSConv2d(nn.Module):
    def __init__(self, channels, c_out, k, bias=True, groups=1, **options):
        super().__init__()
        self.options, self.kernel_size = {"groups": groups, **options}, (k, k)
        image, row, column, scalar = (max(1, c) // groups for c in channels)
        self.nchw_block = nn.Conv2d(image, c_out, k, bias=bias)
        self.nch_block = nn.Conv1d(row, c_out, k, bias=False)
        self.ncw_block = nn.Conv1d(column, c_out, k, bias=False)
        self.nc_block = nn.Linear(scalar, c_out, bias=False)

    def forward(self, *x):
        blocks = (self.nchw_block, self.nch_block, self.ncw_block, self.nc_block)
        weights = [None if s is None else b.weight for s, b in zip(x, blocks)]
        bias = self.nchw_block.bias
        return functional(x, weights, bias, kernel_size=self.kernel_size, **self.options)
"""
TILING = """
from impls.tile_concat.oracle import tiled

def tile_and_concatenate(*x):
    return tiled(x, x[0].shape[2:], 1)
"""
CONTINUED = """
import torch
from torch import nn
from impls import boundary, diff

class PartConv2dLayer(nn.Conv2d):
    method = "partial"

    def __init__(self, c_in, c_out, k, groups=1, bias=True):
        super().__init__(c_in, c_out, k, groups=groups, bias=bias)

    def forward(self, x):
        options = {"groups": self.groups, "method": self.method}
        return boundary.functional(x, self.weight, self.bias, **options)

class ExtraConv2dLayer(PartConv2dLayer):
    method = "extrapolate"

class ExplicitConv2dLayer(nn.Module):
    def __init__(self, c_in, c_out, k, groups=1, bias=True):
        super().__init__()
        self.side, self.groups = k, groups
        steps = range(k // 2, -(k // 2) - 1, -1)
        self.layers_by_disp = nn.ModuleDict(
            {f"{h}__{w}": nn.Conv2d(c_in, c_out, k, groups=groups, bias=bias)
             for h in steps for w in steps})

    def forward(self, x):
        layers = list(self.layers_by_disp.values())
        kernels = torch.stack([one.weight for one in layers]).unflatten(0, (self.side, self.side))
        options = {"groups": self.groups, "method": "explicit"}
        return boundary.functional(x, kernels, layers[0].bias, **options)

class DiffConv2d:
    def __init__(self, kernel_size):
        self.kernel_size = kernel_size

    def conv2d(self, *args, **options):
        return diff.conv2d(*args, **options)

class DiffConv2dLayer(nn.Module):
    def __init__(self, c_in, c_out, k, groups=1, bias=True, keep_img_grad_at_invalid=True,
                 train_edge_kernel=False, optimized_for="memory"):
        super().__init__()
        self.options = {"groups": groups, "optimized_for": optimized_for,
                        "keep_img_grad_at_invalid": keep_img_grad_at_invalid}
        self.inter_layer = nn.Conv2d(c_in, c_out, k, groups=groups, bias=bias)
        made = nn.Conv2d(c_in, c_out, k, groups=groups, bias=bias) if train_edge_kernel else None
        self.edge_layer = made

    def forward(self, x):
        own, edge = self.inter_layer, self.edge_layer
        rest = () if edge is None else (edge.weight, edge.bias)
        return diff.functional(x, own.weight, own.bias, *rest, **self.options)
"""
FILES = {
    "models/__init__.py": "",
    "models/partialconv2d.py": COUNTED + "PartialConv2d = published(partial.PartialConv2d)\n",
    "models/partialconv3d.py": COUNTED + "PartialConv3d = published(partial.PartialConv3d)\n",
    "masked_torch/nn.py": COUNTED + "".join(
        f"PartialConv{rank}d = published(partial.PartialConv{rank}d)\n"
        f"MaskedConv{rank}d = masked.MaskedConv{rank}d\n" for rank in (1, 2, 3)
    ),
    "msconv2d.py": SOURCES,
    "tile_concat.py": TILING,
    "diff_conv2d/layers.py": CONTINUED,
}  # fmt: skip
MASKED = "n1 c2>2 i5x4 k3x3 p1x1 s2x1 mask=bernoulli:0.5"
SAME = "n2 c2>2 i5x7 k3x3 p1x1"
CASES = {
    "partial/nvidia": f"{MASKED} mask_channels=one",
    "partial/nvidia_multi_channel": MASKED,
    "partial/nvidia_multi_channel_groups": f"{MASKED} g2",
    "masked/masked_torch": "n2 c2>2 i5 k3 p0 d2 mask=real",
    "masked/masked_torch_1x1": "n2 c2>2 i4x4x3 k1x1x1 p0x1x0 mask=real",
    "partial/masked_torch": f"{MASKED} mask_batch=one mask_channels=one",
    "partial/masked_torch_channels": MASKED,
    "partial/masked_torch_groups": f"{MASKED} g2",
    "multi_source/msconv": "n2 c2+4+2+2>4 i4x5 k3x3 p1x0 g2",
    "tile_concat/msconv_tied": "n2 c2+1+2+1>4 i4x5 k3x3",
    "tile_concat/tiled": "n2 c2+0+2+1>4 i4x5 k3x3 p1x1",
    "diff/stfc_function": f"{SAME} b0 float64 optimized_for=speed",
    "diff/stfc_layer": f"{SAME} g2",
    "diff/stfc_edge_layer": f"{SAME} edge_kernel=yes",
    "diff/stfc_edge_layer_speed": f"{SAME} edge_kernel=yes optimized_for=speed",
    "boundary/stfc_partial": f"{SAME} method=partial",
    "boundary/stfc_explicit": f"{SAME} method=explicit",
    "boundary/stfc_extrapolate": f"{SAME} method=extrapolate",
}


def _paths():
    return [str(FOLDER / f"{name}.py") for name in ADAPTERS]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a folder that all variables name; nothing imported from it stays."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for variable in ADAPTERS.values():
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in MODULES]:
        del sys.modules[name]


def test_every_adapter_is_listed():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(ADAPTERS)


def test_adapters_without_a_checkout_say_which_variable_and_go_on(monkeypatch):
    for variable in ADAPTERS.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "path", sys.path[:])
    table = load_table([*_paths(), str(ROOT / "examples" / "plugin_by_unfold.py")])
    assert len(table.failures) == len(ADAPTERS)
    for failure, (name, variable) in zip(table.failures, ADAPTERS.items(), strict=True):
        expected = f"ImportError: {variable} must name the folder of a checkout of github.com/"
        assert f"{name}.py is left out: {expected}" in failure
        assert failure.endswith(": it is not set")
        assert "\n" not in failure
    assert table.implementation(table.variant("partial"), "by_unfold")


def test_an_adapter_is_short():
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 30, path.name


def test_every_mode_has_a_case(checkout):
    table = load_table(_paths())
    assert table.failures == ()
    known = {
        (variant.name, i.name) for variant in load_table().variants.values()
        for i in variant.implementations
    }  # fmt: skip
    added = {
        f"{variant.name}/{i.name}" for variant in table.variants.values()
        for i in variant.implementations if (variant.name, i.name) not in known
    }  # fmt: skip
    assert added == set(CASES)


@pytest.mark.parametrize("mode", CASES)
def test_adapter_calls_what_is_published_as_it_means(checkout, mode):
    table = load_table(_paths())
    variant = table.variant(mode.split("/")[0])
    implementation = table.implementation(variant, mode.split("/")[1])
    case = ConvCase.parse(CASES[mode])
    for law in ("G1", "G1b", *(["L1"] if implementation.layer else [])):
        finding = replay(table.law(law), variant, implementation, case, variants=table.variants)
        assert finding.outcome is Outcome.HOLDS, finding.screen


def test_a_wrong_checkout_is_refuted(checkout):
    wrong = COUNTED.replace("return tuple(super().forward(x, mask))",
                            "y, new = super().forward(x, mask); return y * 1.5, new")  # fmt: skip
    path = checkout / "models" / "partialconv2d.py"
    path.write_text(wrong + "PartialConv2d = published(partial.PartialConv2d)\n", encoding="utf-8")
    table = load_table([str(FOLDER / "nvidia_partialconv.py")])
    variant = table.variant("partial")
    case = ConvCase.parse(CASES["partial/nvidia"])
    finding = replay(
        table.law("G1"), variant, table.implementation(variant, "nvidia"), case,
        variants=table.variants,
    )  # fmt: skip
    assert finding.outcome is Outcome.REFUTED
    assert "--plugin" in finding.replay
