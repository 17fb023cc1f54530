"""The studies: what their fields, masks and moments are, on sizes that take no time."""

import pytest
import torch

from harness.evidence import EVIDENCE, markdown, read_evidence
from properties.studies.__main__ import DOCS, STUDIES
from properties.studies.activations import mean_map, shape_of, through_stages
from properties.studies.atlas import STACKS, WAYS, ring_errors
from properties.studies.border import (
    FIELDS,
    METHODS,
    border_errors,
    chebyshev,
    chosen_kernels,
    spherical,
)


def test_fields_are_finite_and_of_order_one_where_their_factors_are_not():
    for field in FIELDS.values():
        values = field(55, 40)
        assert values.shape == (40, 40)
        assert 0.01 < float(values.abs().max()) < 100


def test_the_polar_angle_lies_across_and_the_azimuth_down():
    field = spherical(5, 41)
    # sin(2m (h + w)) is 0 in the middle, where h + w = pi
    assert abs(float(field[20, 20])) < 1e-9
    assert float((field - field.T).abs().max()) > 1e-3


def test_the_chebyshev_field_is_the_product_of_the_document():
    place = 0.3 + 0.5 / 8
    second_kind = 4 * place**2 - 1  # U_2
    expected = second_kind**2 * torch.tensor(4 * place, dtype=torch.float64).sin()
    torch.testing.assert_close(chebyshev(2, 9)[1, 1], expected)


def test_halving_the_spacing_shrinks_the_error_by_the_order_of_the_method():
    coarse, fine = (
        dict(zip(METHODS, border_errors(chebyshev(3, n + 1), 3, torch.float64, 10), strict=True))
        for n in (64, 128)
    )
    orders = {name: (torch.tensor(coarse[name]) / fine[name]).log2().item() for name in METHODS}
    assert round(orders["diff"]) == 3
    assert round(orders["extrapolate"]) == 2
    assert round(orders["replicate"]) == 1
    assert round(orders["zeros"]) == 0


def test_moments_are_those_of_the_textbook():
    values = torch.tensor([0.0, 0.0, 0.0, 4.0])
    found = shape_of(values)
    assert found is not None
    assert found.mean == 1
    assert found.deviation == 3**0.5
    assert abs(found.skewness - 6 / 3**1.5) < 1e-12
    assert abs(found.kurtosis - 21 / 9) < 1e-12
    assert shape_of(torch.ones(5)) is None


def test_the_border_reaches_as_many_rings_inwards_as_windows_do():
    field = chebyshev(3, 41)
    for side, layers, _ in STACKS:
        for name, way in WAYS.items():
            *border, beyond = ring_errors(field, (side, layers, 5), torch.float64, way)
            assert len(border) == layers * (side // 2)
            assert min(border) > 100 * beyond, name
            assert beyond < 1e-14


def test_the_rings_of_one_layer_are_the_border_of_the_study_of_errors():
    field = chebyshev(3, 41)
    weight, way = chosen_kernels(3, 10), WAYS["boundary: replicate"]
    (outer, _) = ring_errors(field, (3, 1, 10), torch.float64, way)
    truth = torch.conv2d(field[None, None], weight)
    size = torch.cat(
        [truth[..., 0, :], truth[..., -1, :], truth[..., 1:-1, 0], truth[..., 1:-1, -1]], -1
    )
    (error,) = border_errors(field, 3, torch.float64, 10, ("replicate",))
    assert abs(outer * float(size.abs().mean()) - error) < 1e-12


def test_masks_that_hide_nothing_and_absent_sources_leave_zero_padding():
    field = chebyshev(3, 41)
    found = {name: ring_errors(field, (5, 1, 5), torch.float64, way) for name, way in WAYS.items()}
    alike = ("plain", "input_masked", "kernel_masked", "masked", "multi_source", "tile_concat")
    assert {tuple(found[name]) for name in alike} == {tuple(found["boundary: zeros"])}
    assert abs(found["partial"][0] - found["boundary: partial"][0]) < 1e-12


def test_a_mean_map_is_small_scaled_by_its_largest_and_tells_what_is_absent():
    y = torch.zeros(1, 2, 32, 32)
    y[:, :, :2, :2], y[:, 1, :2, 2:4] = 4.0, -4.0
    kept = torch.ones(1, 2, 32, 32)
    kept[..., -2:] = 0
    largest, lines = mean_map(y, kept)
    assert largest == 4.0
    assert (len(lines), len(lines[0])) == (16, 16)
    assert lines[0][:3] == ["100", "-50", "0"]
    assert [line[-1] for line in lines] == ["."] * 16


def test_every_way_has_eight_stages_that_halve_the_image():
    seen = [
        (stage, way, y.shape) for stage, way, y, kept in through_stages() if y.shape == kept.shape
    ]
    assert len(seen) == 9 * 3
    assert all(tuple(shape[2:]) == (256 >> stage,) * 2 for stage, _, shape in seen)


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_of_a_study_is_its_evidence(name):
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert page == markdown(read_evidence(EVIDENCE / f"{name}.json"))
