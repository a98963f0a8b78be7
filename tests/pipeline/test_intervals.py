"""Confidence intervals by hand, against SciPy, and where there are none; what they cover: test_interval_coverage.py."""

import math
import time

import numpy as np
import pytest
from scipy import stats

from lmworks.pipeline.evaluate import intervals
from lmworks.pipeline.evaluate.intervals import MIN_DOCUMENTS, ratio_over_documents, skewed_mean, wilson

Z2 = stats.norm.ppf(0.975) ** 2


def test_wilson_by_hand_and_of_scipy():
    low, high = wilson(65, 65)
    assert (float(low), float(high)) == (pytest.approx(65 / (65 + Z2)), 1.0)
    assert float(low) == pytest.approx(0.9442, abs=1e-4)
    low, high = wilson(0, 30)
    assert (float(low), float(high)) == (0.0, pytest.approx(Z2 / (30 + Z2)))
    for successes, trials in ((1, 1), (49, 50), (7, 30), (1990, 2000)):
        expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert [float(bound) for bound in wilson(successes, trials)] == pytest.approx(list(expected), abs=1e-12)
    assert np.isnan(wilson(0, 0)).all()


def test_quantiles_of_student():
    for degrees in (1, 2, 3.7, 9, 64, 1e6):
        assert intervals.student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees))


def test_f1_is_wilson_of_the_jaccard_index():
    hits, labelled, predicted = np.array([8.0, 0.0, 0.0]), np.array([10.0, 3.0, 0.0]), np.array([9.0, 0.0, 0.0])
    low, high = intervals.f1(hits, labelled, predicted)
    jaccard = stats.binomtest(8, 11).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx(tuple(2 * bound / (1 + bound) for bound in jaccard))
    assert low[1] == 0.0
    assert 0 < high[1] < 1
    assert np.isnan(low[2])
    assert np.isnan(high[2])


def test_the_mean_of_one_proportion_is_wilsons():
    for successes, trials in ((65, 65), (0, 12), (40, 50)):
        mean = intervals.mean_of_proportions(np.array([float(successes)]), np.array([float(trials)]))
        assert mean == pytest.approx([float(bound) for bound in wilson(successes, trials)], abs=1e-9)


def test_a_mean_of_proportions_rests_on_its_smallest_class():
    successes, trials = np.array([950.0, 3.0]), np.array([1000.0, 5.0])
    low, high = intervals.mean_of_proportions(successes, trials)
    lone_low, lone_high = wilson(3, 5)
    assert (low, high) == pytest.approx(((0.95 + lone_low) / 2, (0.95 + lone_high) / 2), abs=0.02)
    mirrored = intervals.mean_of_proportions(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low))
    assert intervals.mean_of_proportions(np.array([1.0, 0.0]), np.array([1.0, 0.0])) is None


@pytest.mark.parametrize("classes", [2, 6])
def test_means_of_a_perfect_model_have_a_width(classes):
    matrix = np.eye(classes) * 20
    for bounds in (
        intervals.mean_f1(matrix),
        intervals.mean_f1(matrix, np.full(classes, 1 / classes)),
        intervals.weighted_precision(matrix),
        intervals.mean_of_proportions(matrix.diagonal(), matrix.sum(0)),
    ):
        rows = 20 * classes
        assert bounds[1] == pytest.approx(1.0)
        assert bounds[0] == pytest.approx(rows / (rows + Z2), abs=0.02)


def test_no_mean_over_classes_that_say_nothing():
    absent = np.array([[5.0, 1.0, 0.0], [1.0, 7.0, 1.0], [0.0, 0.0, 0.0]])
    assert intervals.mean_f1(absent) is None
    never = np.array([[5.0, 1.0], [3.0, 0.0]])
    assert intervals.mean_f1(never)[1] < 1
    never[:, 1] = 0
    assert intervals.weighted_precision(never) is None
    assert intervals.mean_f1(np.array([[9.0]])) is None


def test_a_mean_without_skewness_is_students():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    expected = stats.t.interval(0.95, 6, loc=4, scale=stats.sem(values))
    assert skewed_mean(values) == pytest.approx(expected)
    low, high = skewed_mean(np.append(values, 60.0))
    assert high - 11 > 11 - low > 0, "a long upper tail hides more above the mean"
    assert skewed_mean(np.full(9, 0.1)) is None
    assert skewed_mean(values[:1]) is None


def test_documents_of_one_size_are_a_plain_mean():
    values, size = np.random.default_rng(0).normal(3, 1, 12), np.full(12, 50.0)
    low, high = ratio_over_documents(values * size, size)
    half = stats.t.ppf(0.975, 11) * math.sqrt(11 / 12) * stats.sem(values) * 12 / 11
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert ratio_over_documents(values[: MIN_DOCUMENTS - 1], size[: MIN_DOCUMENTS - 1]) is None
    assert ratio_over_documents(size * 2.5, size) is None, "all the same: nothing to tell a spread from"


def test_the_variance_is_the_jackknifes_and_few_long_documents_count_as_few():
    random = np.random.default_rng(1)
    sizes = np.append(random.integers(10, 100, 30), [4000, 6000]).astype(float)
    totals = sizes * random.normal(3, 0.5, 32)
    ratio = totals.sum() / sizes.sum()
    left_out = [(totals.sum() - total) / (sizes.sum() - size) for total, size in zip(totals, sizes, strict=True)]
    deviation = math.sqrt(sum((value - ratio) ** 2 for value in left_out))
    low, high = ratio_over_documents(totals, sizes)
    assert (low + high) / 2 == pytest.approx(ratio)
    quantile = (high - low) / 2 / deviation
    assert stats.t.ppf(0.975, 3) < quantile < stats.t.ppf(0.975, 1), "about two documents decide"


def test_the_degrees_of_freedom_are_bell_and_mccaffreys():
    sizes = np.array([3.0, 10.0, 40.0, 7.0, 7.0, 21.0, 80.0, 5.0, 9.0, 30.0])
    share = sizes / sizes.sum()
    residual_maker = np.eye(10) - np.outer(sizes, np.ones(10)) / sizes.sum()
    weight = np.diag(1 / (1 - share))
    form = weight @ residual_maker @ np.diag(sizes) @ residual_maker.T @ weight
    expected = stats.t.ppf(0.975, np.trace(form) ** 2 / (form**2).sum())
    totals = sizes * np.arange(10)
    residuals = (totals - totals.sum() * share) / (1 - share)
    low, high = ratio_over_documents(totals, sizes)
    assert (high - low) / 2 == pytest.approx(expected * math.sqrt((residuals**2).sum()) / sizes.sum())


def test_intervals_of_many_classes_and_documents_are_fast():
    matrix = np.random.default_rng(0).integers(0, 5, (200, 200)) + np.eye(200) * 100
    start = time.perf_counter()
    intervals.mean_f1(matrix)
    intervals.weighted_precision(matrix)
    intervals.mean_of_proportions(matrix.diagonal(), matrix.sum(0))
    sizes = np.random.default_rng(0).lognormal(6, 1, 100_000)
    ratio_over_documents(sizes * 3 + np.sqrt(sizes), sizes)
    assert time.perf_counter() - start < 2
