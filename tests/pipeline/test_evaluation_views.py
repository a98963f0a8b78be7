"""What clusters show of an evaluation, against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from lmworks.pipeline.evaluate.classification import Figure
from lmworks.pipeline.evaluate.views import class_view, metric_view, roc


def sample(classes: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    labels = random.integers(classes, size=rows)
    logits = random.normal(size=(rows, classes)).round(1) + 1.5 * np.eye(classes)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, scores.astype(np.float32)


def test_roc_is_that_of_scikit_learn():
    labels, scores = sample(2)
    scores[:50] = scores[0]  # ties
    false, true, thresholds = roc(labels == 1, scores[:, 1])
    expected = reference.roc_curve(labels, scores[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0])
    np.testing.assert_allclose(true, expected[1])
    np.testing.assert_allclose(thresholds[1:], expected[2][1:])
    assert thresholds[0] == 1.0


@pytest.mark.parametrize("classes", [2, 5])
def test_confusion_and_curve(classes):
    labels, scores = sample(classes)
    names = [f"class {index}" for index in range(classes)]
    shown = class_view(labels, scores, names)
    told = [row["row"] for row in shown["confusionMatrix"]["rows"]]
    assert told == reference.confusion_matrix(labels, scores.argmax(1)).tolist()
    assert [spec["displayName"] for spec in shown["confusionMatrix"]["annotationSpecs"]] == names
    points = shown["confidenceMetrics"]
    assert 50 < len(points) <= 200
    truths, flat = (labels == 1, scores[:, 1]) if classes == 2 else (np.eye(classes)[labels].ravel(), scores.ravel())
    area = np.trapezoid([point["recall"] for point in points], [point["falsePositiveRate"] for point in points])
    assert area == pytest.approx(reference.roc_auc_score(truths, flat), abs=2e-3)
    json.dumps(shown, allow_nan=False)


def test_where_there_is_no_curve_or_no_readable_matrix():
    labels, scores = sample(40)
    assert set(class_view(labels, scores, list(map(str, range(40))))) == {"confidenceMetrics"}
    assert set(class_view(np.zeros(5, int), scores[:5, :2], ["a", "b"])) == {"confusionMatrix"}


def test_metrics_of_single_classes_are_left_out():
    assert metric_view({"accuracy": Figure(value=0.5), "f1/good": Figure(value=1.0)}) == {"accuracy": 0.5}
