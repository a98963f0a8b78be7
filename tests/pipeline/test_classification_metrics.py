"""Metrics against scikit-learn, which of them have intervals, and slices."""

import time

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from lmworks.configs.errors import UserError
from lmworks.pipeline.evaluate.classification import calibration, confusion, figures, intervals, measure
from lmworks.pipeline.evaluate.intervals import skewed_mean, wilson
from lmworks.pipeline.evaluate.slices import MAX_VALUES, OTHER, measure_slices


def softmax_rows(rows, classes, seed, sharpness=2.0, dtype=np.float32):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=rows)
    logits = random.normal(size=(rows, classes)) * sharpness
    logits[np.arange(rows), labels] += 1.0
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return labels, (scores / scores.sum(axis=1, keepdims=True)).astype(dtype)


def names_of(classes):
    return [f"class {index}" for index in range(classes)]


def assert_equals_sklearn(labels, scores):
    classes = scores.shape[1]
    mine = measure(labels, scores, names_of(classes))
    predictions = scores.argmax(axis=1)
    every = list(range(classes))
    expected = {"accuracy": accuracy_score(labels, predictions)}
    for average in ("macro", "weighted", None):
        three = precision_recall_fscore_support(labels, predictions, labels=every, average=average, zero_division=0)
        for kind, value in zip(("precision", "recall", "f1"), three[:3], strict=True):
            if average:
                expected[f"{kind}_{average}"] = value
            else:
                expected |= {f"{kind}/{name}": value[index] for index, name in enumerate(names_of(classes))}
    assert mine == pytest.approx(expected | {"log_loss": mine["log_loss"]}, rel=1e-12, abs=1e-15)
    assert mine["log_loss"] == pytest.approx(log_loss(labels, scores, labels=every), rel=1e-5, abs=1e-7)
    np.testing.assert_array_equal(
        confusion(labels, predictions, classes), confusion_matrix(labels, predictions, labels=every)
    )


@pytest.mark.filterwarnings("ignore:The y_prob")
@pytest.mark.parametrize("classes", [2, 3, 7, 40])
@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_sklearn(classes, rows, dtype):
    assert_equals_sklearn(*softmax_rows(rows, classes, seed=classes * rows, dtype=dtype))


def test_classes_absent_from_labels_predictions_or_both_count_as_zero():
    labels, scores = softmax_rows(400, 5, seed=1)
    labels[labels >= 3] = 0  # 3 is predicted only
    scores[:, 4] = 0  # 4 is neither
    scores[:, 1] = 0  # 1 is labelled only
    scores /= scores.sum(axis=1, keepdims=True)
    assert_equals_sklearn(labels, scores)
    mine = measure(labels, scores, names_of(5))
    assert [mine[f"f1/class {index}"] for index in (1, 3, 4)] == [0, 0, 0]
    assert mine["f1_macro"] == pytest.approx((mine["f1/class 0"] + mine["f1/class 2"]) / 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_clips_like_sklearn(dtype):
    labels = np.array([0, 1, 1])
    scores = np.array([[0, 1], [0, 1], [1, 0]], dtype)
    assert measure(labels, scores, "ab")["log_loss"] == pytest.approx(log_loss(labels, scores), rel=1e-6)


def test_ties_go_to_the_first_class():
    scores = np.full((3, 3), 1 / 3, np.float32)
    assert measure(np.array([0, 0, 1]), scores, "abc")["recall/a"] == 1
    assert_equals_sklearn(np.array([0, 0, 1]), scores)


def test_bad_arrays():
    scores = np.full((2, 2), 0.5, np.float32)
    for function in (measure, intervals, figures):
        with pytest.raises(UserError, match="the split is empty"):
            function(np.zeros(0, int), np.zeros((0, 2), np.float32), "ab")
    with pytest.raises(UserError, match="1 of 2 rows"):
        measure(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32), "ab")
    for labels in ([0, 2], [-1, 0], [0, 1, 1]):
        with pytest.raises(ValueError, match="fit"):
            measure(np.array(labels), scores, "ab")


def test_every_metric_of_a_whole_split_has_an_interval_that_holds_it():
    labels, scores = softmax_rows(300, 3, seed=3)
    bounds, values = intervals(labels, scores, "abc"), measure(labels, scores, "abc")
    assert bounds.keys() == values.keys()
    assert all(low < values[name] < high for name, (low, high) in bounds.items())
    assert figures(labels, scores, "abc") == {
        name: {"value": value, "ci95": bounds[name]} for name, value in values.items()
    }


def test_65_of_65_right_is_no_certainty():
    labels = np.arange(65) % 2
    bounds = intervals(labels, np.eye(2, dtype=np.float32)[labels] * 0.8 + 0.1, "ab")
    for name in ("accuracy", "f1_macro", "precision_macro", "recall_macro", "f1_weighted", "recall_weighted"):
        assert bounds[name][0] == pytest.approx(0.9442, abs=5e-3), name
        assert bounds[name][1] == pytest.approx(1.0), name
    assert bounds["recall/b"] == (pytest.approx(32 / (32 + 3.8415), abs=1e-4), 1.0)
    assert "log_loss" not in bounds, "without mistakes nothing is known of what they cost"


def test_the_interval_of_the_log_loss_ends_at_0():
    """The cubic of `skewed_mean` goes below where few rows have a long tail of small losses."""
    losses = np.array([0.72, 8.5, 15.6, 15.7, 15.7, 15.8])
    scores = np.stack([np.exp(-losses), 1 - np.exp(-losses)], axis=1)
    low, high = intervals(np.zeros(6, int), scores, "ab")["log_loss"]
    assert skewed_mean(losses)[0] < 0
    assert low == 0 < losses.mean() < high == pytest.approx(skewed_mean(losses)[1])


def test_intervals_are_wilsons_with_the_rows_of_their_class():
    labels, scores = softmax_rows(200, 3, seed=5)
    predictions = scores.argmax(1)
    bounds = intervals(labels, scores, "abc")

    def expected(right, of):
        return pytest.approx([float(bound) for bound in wilson(right.sum(), of.sum())])

    assert bounds["accuracy"] == bounds["recall_weighted"] == expected(predictions == labels, labels >= 0)
    both = (labels == 1) & (predictions == 1)
    assert bounds["recall/b"] == expected(both, labels == 1)
    assert bounds["precision/b"] == expected(both, predictions == 1)


def test_a_class_without_labelled_rows_has_no_figures_and_leaves_the_means_without_intervals():
    labels, scores = softmax_rows(200, 4, seed=6)
    labels[labels == 3] = 0
    result = figures(labels, scores, "abcd")
    assert not [name for name in result if name.endswith("/d")]
    assert result["f1_macro"]["value"] == measure(labels, scores, "abcd")["f1_macro"]
    assert [name for name, figure in result.items() if "ci95" not in figure] == [
        "precision_macro", "recall_macro", "f1_macro",
    ]  # fmt: skip
    never = scores * np.array([1, 1, 0, 1], np.float32)
    result = figures(labels, never / never.sum(1, keepdims=True), "abcd")
    assert result["precision/c"] == {"value": 0.0}
    assert result["recall/c"]["ci95"][0] == 0.0
    assert 0 < result["recall/c"]["ci95"][1] < 0.2


def test_intervals_of_10_000_rows_are_fast():
    labels, scores = softmax_rows(10_000, 2, seed=1)
    intervals(labels, scores, "ab")  # imports SciPy
    start = time.perf_counter()
    intervals(labels, scores, "ab")
    assert time.perf_counter() - start < 0.5


def test_calibration_of_a_known_case():
    scores = np.array([[0.95, 0.05]] * 4 + [[0.4, 0.6]] * 2, np.float32)
    result = calibration(np.array([0, 0, 0, 1, 1, 1]), scores)
    assert result["error"] == pytest.approx((4 * abs(0.75 - 0.95) + 2 * abs(1 - 0.6)) / 6, abs=1e-6)
    assert result["examples"].sum() == 6
    assert np.isnan(result["accuracy"]).sum() == 8


def test_slices_are_figures_of_their_rows():
    labels, scores = softmax_rows(60, 2, seed=2)
    values = ["x"] * 30 + [None] * 20 + ["null"] * 10
    for column in (values, pa.array(values), pa.chunked_array([values[:7], values[7:]])):
        result = measure_slices({"kind": column}, labels, scores, "ab")
        assert [(part["slice"], part["examples"]) for part in result] == [
            ({"kind": "x"}, 30),
            ({"kind": None}, 20),
            ({"kind": "null"}, 10),
        ]
        assert result[1]["metrics"] == figures(labels[30:50], scores[30:50], "ab")
    with pytest.raises(ValueError, match="kind"):
        measure_slices({"kind": values[1:]}, labels, scores, "ab")


def test_many_values_end_in_other():
    labels, scores = softmax_rows(200, 2, seed=2)
    values = ["big"] * 20 + [OTHER] * 20 + [f"v{row}" for row in range(160)]
    result = measure_slices({"kind": np.array(values)}, labels, scores, "ab")
    keys = [part["slice"]["kind"] for part in result]
    assert len(set(keys)) == len(keys) == MAX_VALUES
    assert (keys[0], keys[-1]) == ("big", OTHER)
    assert sum(part["examples"] for part in result) == 200
