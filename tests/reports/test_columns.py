import pytest

from tif.reports.columns import format_interval, format_number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"), (0.0, "0.000"), (1, "1.000"), (0.12345, "0.123"), (0.001, "0.001"),
        (0.00099, "9.9e-04"), (3.2e-17, "3.2e-17"), (-0.5, "-0.500"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_and_small_ones_are_powers(value, expected):
    assert format_number(value) == expected


def test_an_interval_has_its_two_limits():
    assert format_interval((0.00012, 0.5)) == "1.2e-04 – 0.500"
