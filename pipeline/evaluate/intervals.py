"""95 % confidence intervals in closed form: no resampling and no seed; docs/intervals.md shows what they cover.

Where the data say nothing there is no interval, rather than a narrow one.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

LEVEL = 0.95
MIN_DOCUMENTS = 10
"""With fewer documents there is no interval: so few say too little about others."""

_TAIL = 0.5 + LEVEL / 2
_Z = NormalDist().inv_cdf(_TAIL)
_PSEUDO_ROWS = _Z**2 / 2
"""Rows that `_smoothed` adds to each class, as Wilson's centre adds them: where nothing went wrong yet, something may."""
_BISECTIONS = 64


def wilson(successes: Any, trials: Any) -> tuple[Floats, Floats]:
    """Computes Wilson's score interval of a proportion.

    Wilson 1927, Probable inference, the law of succession, and statistical inference, JASA 22, 209-212. Unlike a bootstrap
    it has a width where all trials succeed, and it covers what it claims with few trials (Brown, Cai and DasGupta 2001,
    Interval estimation for a binomial proportion, Statistical Science 16, 101-133).

    Args:
        successes: float64 [...], from 0 to `trials`.
        trials: float64 [...]; an effective number need not be whole.

    Returns:
        Lower and upper bounds, float64 [...]; NaN without trials.
    """
    successes, trials = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    size = np.where(trials > 0, trials, np.nan)
    share = successes / size
    centre = (share + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
    half = _Z / (1 + _Z**2 / size) * np.sqrt(share * (1 - share) / size + _Z**2 / (4 * size**2))
    low = np.where(successes <= 0, 0.0 * size, np.maximum(centre - half, 0.0))
    high = np.where(successes >= trials, 1.0 + 0.0 * size, np.minimum(centre + half, 1.0))
    return low, high


def f1(hits: Floats, labelled: Floats, predicted: Floats) -> tuple[Floats, Floats]:
    """Computes intervals of the F1 of classes.

    Of the rows that are labelled or predicted as a class, those that are both are binomial, with the Jaccard index J as
    their probability; so F1 = 2 J / (1 + J), which rises with J, has the bounds that Wilson's interval of J has.

    Args:
        hits: float64 [classes], rows of the class that are predicted as it.
        labelled: float64 [classes], rows whose label is the class.
        predicted: float64 [classes], rows predicted as the class.

    Returns:
        Lower and upper bounds, float64 [classes]; NaN for a class with neither.
    """
    low, high = wilson(hits, labelled + predicted - hits)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def mean_of_proportions(successes: Floats, trials: Floats) -> Bounds | None:
    """Computes the score interval of the unweighted mean of independent proportions; of one proportion it is Wilson's.

    A bound is the mean whose distance to the observed one is z standard deviations, taken at the proportions that are the
    likeliest with that mean (Martín Andrés, Álvarez Hernández and Herranz Tejedor 2011, Inferences about a linear
    combination of proportions, Statistical Methods in Medical Research 20, 369-387). With a Lagrange multiplier m they solve
    n (p̂ - p) = m w p (1 - p), a quadratic equation each, and m is found by bisection.

    Args:
        successes: float64 [classes].
        trials: float64 [classes].

    Returns:
        The bounds; None where a class has no trials.
    """
    if not len(trials) or trials.min() <= 0:
        return None
    shares, weight = successes / trials, 1 / len(trials)
    low = _lowest_mean(shares, trials, weight)
    return low, 1 - _lowest_mean(1 - shares, trials, weight)


def _lowest_mean(shares: Floats, trials: Floats, weight: float) -> float:
    """The lower bound of `mean_of_proportions`."""
    observed = weight * shares.sum()

    def likeliest(multiplier: float) -> Floats:
        total = multiplier * weight + trials
        root = np.sqrt(np.maximum(total**2 - 4 * multiplier * weight * trials * shares, 0.0))
        return np.clip(2 * trials * shares / (total + root), 0.0, 1.0)

    below, above = math.log(1e-9), math.log(1e15)
    for _ in range(_BISECTIONS):
        middle = (below + above) / 2
        proportions = likeliest(math.exp(middle))
        deviation = weight * math.sqrt((proportions * (1 - proportions) / trials).sum())
        if observed - weight * proportions.sum() > _Z * deviation:
            above = middle
        else:
            below = middle
    return float(weight * likeliest(math.exp(above)).sum())


def mean_f1(matrix: Floats, weights: Floats | None = None) -> Bounds | None:
    """Computes the interval of the mean F1 over classes: Wilson's, for as many rows as its variance is worth.

    The classes share their errors, so that their F1 are not independent. The variance comes from the influence of each cell
    of the matrix (the delta method), the matrix smoothed so that it is never zero; theta (1 - theta) / variance is the
    number of rows of a plain proportion that varies as much (Kish 1965, Survey Sampling: the effective sample size). The
    centre is corrected for the bias of F1 with few rows, the second-order term of 2 J / (1 + J).

    Args:
        matrix: [classes, classes], a row per label, a column per prediction.
        weights: float64 [classes], shares of the classes among the labels; without, all classes count alike.

    Returns:
        The bounds; None where a class that counts has no labelled rows.
    """
    labelled, predicted, hits = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    classes, rows = len(matrix), matrix.sum()
    if classes < 2 or (weights is None and labelled.min() <= 0):
        return None
    shares = np.full(classes, 1 / classes) if weights is None else weights
    either = labelled + predicted
    value = float((shares * np.divide(2 * hits, either, out=np.zeros(classes), where=either > 0)).sum())

    cells = _smoothed(matrix)
    likely_hits, likely_either = cells.diagonal(), cells.sum(axis=1) + cells.sum(axis=0)
    scores = 2 * likely_hits / likely_either
    per_row = shares / np.where(either > 0, either / rows, likely_either)
    influence = np.diag(2 * per_row) - (per_row * scores)[:, None] - (per_row * scores)[None, :]
    if weights is not None:  # these are estimates too
        influence += scores[:, None]
    jaccard = likely_hits / (likely_either - likely_hits)
    seen = np.maximum(either - hits, 1)
    bias = float((shares * 2 * jaccard * (1 - jaccard) / (1 + jaccard) ** 3 / seen).sum())
    return _effective(value, value + bias, float((shares * scores).sum()), cells, influence, rows)


def weighted_precision(matrix: Floats) -> Bounds | None:
    """Computes the interval of the precision of the classes, weighted by their labels; as `mean_f1`.

    Args:
        matrix: [classes, classes], a row per label, a column per prediction.

    Returns:
        The bounds; None where a class that has labelled rows is never predicted, which leaves its precision unknown.
    """
    labelled, predicted, hits = matrix.sum(axis=1), matrix.sum(axis=0), matrix.diagonal()
    classes, rows = len(matrix), matrix.sum()
    if classes < 2 or (predicted[labelled > 0] <= 0).any():
        return None
    shares = labelled / rows
    value = float((shares * np.divide(hits, predicted, out=np.zeros(classes), where=predicted > 0)).sum())

    cells = _smoothed(matrix)
    scores = cells.diagonal() / cells.sum(axis=0)
    per_row = shares / np.where(predicted > 0, predicted / rows, cells.sum(axis=0))
    influence = np.diag(per_row) - (per_row * scores)[None, :] + scores[:, None]
    # A class that hits more by chance has more labels, and so a greater weight.
    bias = float((scores * (1 - scores)).sum() / rows)
    return _effective(value, value - bias, float((shares * scores).sum()), cells, influence, rows)


def _smoothed(matrix: Floats) -> Floats:
    """Shares of the cells, after each label got a few rows, right as often as all are and else spread as predictions are."""
    classes, rows = len(matrix), matrix.sum()
    right = (np.trace(matrix) + _Z**2 / 2) / (rows + _Z**2)
    wrong = np.tile(matrix.sum(axis=0) + 1.0, (classes, 1))
    np.fill_diagonal(wrong, 0.0)
    added = (1 - right) * wrong / wrong.sum(axis=1, keepdims=True)
    np.fill_diagonal(added, right)
    cells = matrix + _PSEUDO_ROWS * added
    return cells / cells.sum()


def _effective(value: float, centre: float, likely: float, cells: Floats, influence: Floats, rows: float) -> Bounds:
    """Wilson's interval around the centre for the effective number of rows, widened to hold the value itself."""
    mean = (cells * influence).sum()
    variance = (cells * (influence - mean) ** 2).sum() / rows
    size = likely * (1 - likely) / variance
    low, high = wilson(min(max(centre, 0.0), 1.0) * size, size)
    return min(float(low), value), max(float(high), value)


def within(bounds: Bounds | None, least: float, most: float) -> Bounds | None:
    """Cuts an interval to the values that its figure can have."""
    return bounds and (max(bounds[0], least), min(bounds[1], most))


def skewed_mean(values: Floats) -> Bounds | None:
    """Computes the interval of a mean of values with a long tail: Student's t with the skewness removed.

    Hall 1992, On the removal of skewness by transformation, Journal of the Royal Statistical Society B 54, 221-228: the
    monotone cubic of t, whose quantiles are those of a symmetric distribution.

    Args:
        values: float64 [n].

    Returns:
        The bounds; None for fewer than two values, or values that are all the same.
    """
    rows = len(values)
    spread = float(values.std()) if rows > 1 else 0.0
    # Equal values have a spread of rounding errors.
    if spread <= 1e-12 * abs(float(values.mean())):
        return None
    mean, error = float(values.mean()), spread / math.sqrt(rows - 1)
    skewness = float((((values - mean) / spread) ** 3).mean()) / math.sqrt(rows)
    quantile = student(rows - 1)
    if abs(skewness) < 1e-9:
        return mean - quantile * error, mean + quantile * error

    def untransformed(x: float) -> float:
        return 3 / skewness * (float(np.cbrt(1 + skewness * (x - skewness / 6))) - 1)

    return mean - error * untransformed(quantile), mean - error * untransformed(-quantile)


def ratio_over_documents(numerators: Floats, denominators: Floats) -> Bounds | None:
    """Computes the interval of a ratio of totals, whose units are documents of unequal size: Student's t of the jackknife.

    The variance is that of the ratio with each document left out in turn. Where a few long documents hold most of the tokens
    it rests on these few, which its degrees of freedom must say: they are those of Satterthwaite's approximation, as if the
    variance of a document's numerator were proportional to its denominator (Bell and McCaffrey 2002, Bias reduction in
    standard errors for linear regression with multi-stage samples, Survey Methodology 28, 169-181). Documents of one size
    have n - 1 of them.

    Args:
        numerators: float64 [documents].
        denominators: float64 [documents], above 0.

    Returns:
        The bounds; None for fewer than MIN_DOCUMENTS documents, or where all have the same ratio.
    """
    if len(denominators) < MIN_DOCUMENTS:
        return None
    total = denominators.sum()
    ratio = numerators.sum() / total
    share = denominators / total
    odds = share / (1 - share)
    residuals = (numerators - ratio * denominators) / (1 - share)
    error = math.sqrt((residuals**2).sum()) / total
    if error <= 1e-12 * abs(ratio):
        return None
    trace = odds.sum()
    trace_of_square = (odds**2).sum() + (odds**2).sum() ** 2 - (odds**4).sum()
    half = student(float(trace**2 / trace_of_square)) * error
    return float(ratio - half), float(ratio + half)


def student(degrees: float) -> float:
    """The quantile of Student's t that leaves 2.5 % above it; the degrees of freedom need not be whole."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, _TAIL))
