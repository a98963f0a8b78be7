"""Numbers and durations as a person reads them."""

import math

import pytest

from lmworks.tfx.readable import apart, clock, count, metric, number


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8617123456789012, "0.8617"), (12345.678, "12,346"), (123.456, "123.5"), (2.5e-05, "2.5e-05"), (-1234.5, "-1,234"),
     (7, "7"), (13502, "13,502"), (math.nan, "nan"), (math.inf, "inf"), (1e20, "1e+20"), (0.0, "0")],
)  # fmt: skip
def test_numbers_have_four_digits(value, text):
    assert number(value) == text


def test_values_on_two_sides_of_a_bound_never_look_equal():
    assert apart(0.8999612345, 0.9) == ("0.89996", "0.9")
    assert apart(0.9, 0.9) == ("0.9", "0.9")
    assert apart(math.nextafter(0.9, 0), 0.9) == ("0.8999999999999999", "0.9")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (999, "999"), (1000, "1.00k"), (12_345, "12.3k"), (999_600, "1.00M"), (22_713_216, "22.7M"),
     (124_439_808, "124M"), (1_500_000_000, "1.50G")],
)  # fmt: skip
def test_counts_have_three_digits_and_a_small_model_has_parameters(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0:00"), (7.9, "0:07"), (130, "2:10"), (3912, "1:05:12"), (math.inf, "–"), (-math.inf, "–"), (math.nan, "–")],
)
def test_durations(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1.0000"), (0.8617123, "0.8617"), (66.54321, "66.54"), (54321.9, "54,322")]
)
def test_metrics(value, text):
    assert metric(value) == text
