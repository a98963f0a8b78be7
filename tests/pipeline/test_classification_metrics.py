"""Metrics against scikit-learn, and the bootstrap against what is known about it."""

import time

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from lmworks.configs.errors import UserError
from lmworks.pipeline.evaluate.classification import calibration, confusion, figures, intervals, measure
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
    for function in (measure, lambda *arrays: intervals(*arrays, 10, 0), lambda *arrays: figures(*arrays, 0, 0)):
        with pytest.raises(UserError, match="the split is empty"):
            function(np.zeros(0, int), np.zeros((0, 2), np.float32), "ab")
    with pytest.raises(UserError, match="1 of 2 rows"):
        measure(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32), "ab")
    for labels in ([0, 2], [-1, 0], [0, 1, 1]):
        with pytest.raises(ValueError, match="fit"):
            measure(np.array(labels), scores, "ab")


def test_bootstrap_is_a_function_of_the_seed():
    labels, scores = softmax_rows(300, 3, seed=3)
    first = intervals(labels, scores, "abc", 200, seed=5)
    assert first == intervals(labels, scores, "abc", 200, seed=5)
    assert first != intervals(labels, scores, "abc", 200, seed=6)
    assert intervals(labels, scores, "abc", 0, seed=5) == {}
    values = measure(labels, scores, "abc")
    assert first.keys() == values.keys()
    assert all(low <= values[name] <= high for name, (low, high) in first.items())


def test_bootstrap_equals_a_loop_over_measure():
    labels, scores = softmax_rows(200, 4, seed=4)
    random = np.random.default_rng(0)
    draws = [random.integers(200, size=200) for _ in range(2000)]
    loop = [measure(labels[rows], scores[rows], "abcd") for rows in draws]
    for name, bounds in intervals(labels, scores, "abcd", 2000, seed=9).items():
        values = [replicate[name] for replicate in loop]
        assert bounds == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.25 * np.std(values)), name


def test_bootstrap_covers_the_truth():
    truth, hits, trials = 0.8, 0, 300
    random = np.random.default_rng(7)
    for trial in range(trials):
        right = random.random(400) < truth
        scores = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]).astype(np.float32)
        low, high = intervals(np.zeros(400, int), scores, "ab", 300, seed=trial)["accuracy"]
        hits += low <= truth <= high
    assert 0.90 <= hits / trials <= 0.98


def test_bootstrap_is_fast():
    labels, scores = softmax_rows(10_000, 2, seed=1)
    start = time.perf_counter()
    intervals(labels, scores, "ab", 1000, seed=0)
    assert time.perf_counter() - start < 2


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
        result = measure_slices({"kind": column}, labels, scores, "ab", 50, 0)
        assert [(part["slice"], part["examples"]) for part in result] == [
            ({"kind": "x"}, 30),
            ({"kind": None}, 20),
            ({"kind": "null"}, 10),
        ]
        assert result[1]["metrics"] == figures(labels[30:50], scores[30:50], "ab", 50, 0)
    with pytest.raises(ValueError, match="kind"):
        measure_slices({"kind": values[1:]}, labels, scores, "ab", 0, 0)


def test_many_values_end_in_other():
    labels, scores = softmax_rows(200, 2, seed=2)
    values = ["big"] * 20 + [OTHER] * 20 + [f"v{row}" for row in range(160)]
    result = measure_slices({"kind": np.array(values)}, labels, scores, "ab", 0, 0)
    keys = [part["slice"]["kind"] for part in result]
    assert len(set(keys)) == len(keys) == MAX_VALUES
    assert (keys[0], keys[-1]) == ("big", OTHER)
    assert sum(part["examples"] for part in result) == 200
