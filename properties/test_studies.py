"""The studies: what their fields, masks and moments are, on sizes that take no time."""

import torch

from properties.studies.activations import shape_of
from properties.studies.border import FIELDS, METHODS, border_errors, chebyshev, spherical


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
