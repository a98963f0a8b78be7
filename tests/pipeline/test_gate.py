"""Thresholds, the blessing, and what is remarkable of predictions."""

import json

import numpy as np
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.metrics import METRICS as METRICS_OF
from lmworks.configs.schema import Threshold
from lmworks.pipeline.evaluate import language_metrics
from lmworks.pipeline.evaluate.classification import figures
from lmworks.pipeline.evaluate.collapse import remarks
from lmworks.pipeline.evaluate.gate import check_names, gate
from lmworks.pipeline.evaluate.language import GRAM

METRICS = {"accuracy": {"value": 0.87, "ci95": (0.8, 0.9)}, "log_loss": {"value": 0.3}, "f1/a b": {"value": 0.5}}


def decide(thresholds, classes=()):
    return gate(METRICS, {name: Threshold(**bounds) for name, bounds in thresholds.items()}, "test", classes)


@pytest.mark.parametrize(
    ("thresholds", "blessed", "reasons", "verdict"),
    [
        ({}, True, ["no thresholds set"], "no thresholds set"),
        ({"accuracy": {"min": 0}}, True, ["no thresholds set that could fail"], "no thresholds set that could fail"),
        ({"accuracy": {"max": 1}, "log_loss": {"min": 0}}, True, ["no thresholds set that could fail"], None),
        ({"accuracy": {"min": 0.87}}, True, ["accuracy 0.87 is at least the minimum 0.87"], "blessed"),
        ({"accuracy": {"max": 0.87}}, True, ["accuracy 0.87 is at most the maximum 0.87"], "blessed"),
        (
            {"accuracy": {"min": 0.8701}},
            False,
            ["accuracy 0.87 is below the minimum 0.8701"],
            "NOT blessed: accuracy 0.87 is below the minimum 0.8701",
        ),
        (
            {"accuracy": {"min": 0.5}, "log_loss": {"max": 0.2}, "f1/a b": {"min": 0.6, "max": 0.9}},
            False,
            ["log_loss 0.3 is above the maximum 0.2", "f1/a b 0.5 is below the minimum 0.6"],
            None,
        ),
    ],
)
def test_blessing(tmp_path, thresholds, blessed, reasons, verdict):
    decision = decide(thresholds)
    assert (decision.blessed, decision.reasons) == (blessed, reasons)
    assert verdict is None or decision.verdict == verdict
    failing = 0 if reasons[0].startswith("no thresholds") else len(thresholds)
    decision.write(tmp_path)
    written = json.loads((tmp_path / "blessing.json").read_text())
    assert written == {"blessed": blessed, "reasons": reasons, "thresholds": failing}
    assert decision.properties() == ({"blessed": blessed} if failing else {"gate": "no thresholds set"})


def test_the_config_knows_every_metric_that_is_measured():
    random = np.random.default_rng(0)
    scores = random.dirichlet([1, 1], 40).astype(np.float32)
    overall = {name for name in figures(np.arange(40) % 2, scores, ["a", "b"]) if "/" not in name}
    assert overall == set(METRICS_OF["text_classification"])
    ones = np.ones(10)
    causal = language_metrics.figures(language_metrics.Sums(ones, ones, ones, ones, np.arange(10)))
    assert {*causal, f"memorised_{GRAM}grams"} == set(METRICS_OF["causal_lm"])
    masked = language_metrics.figures(language_metrics.Sums(ones, ones, ones, 0 * ones, np.arange(10)))
    assert set(masked) == set(METRICS_OF["masked_lm"])


def test_a_bound_of_nan_never_blesses():
    decision = gate(METRICS, {"accuracy": Threshold.model_construct(min=float("nan"), max=None)}, "test")
    assert not decision.blessed


def test_a_class_without_rows_is_not_blessed():
    decision = decide({"f1/c": {"min": 0.5}}, ("a b", "c"))
    assert (decision.blessed, decision.reasons) == (False, ["f1/c: the class has no rows in the test split"])


def test_the_nearest_metric_is_named():
    with pytest.raises(UserError, match="no metric 'acuracy'; the nearest is 'accuracy'"):
        decide({"acuracy": {"min": 0.5}})
    check_names(["accuracy", "f1/a b"], ["a b", "c"])
    with pytest.raises(
        UserError, match=r"f1/ab: .* no such metric; did you mean f1/a b\?\n.*recall/d: .*no such metric"
    ):
        check_names(["f1/ab", "recall/d"], ["a b", "c"])


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([[50, 0], [0, 50]], []),
        ([[95, 0], [3, 2]], []),  # as its labels are
        ([[50, 0], [47, 3]], ["a gets 97% of the predictions and has 50% of the labels"]),
        ([[5, 0], [5, 0]], ["never predicted: b"]),  # too few rows to say more
        (
            [[30, 0, 0], [30, 0, 0], [0, 0, 0]],
            ["never predicted: b", "a gets 100% of the predictions and has 50% of the labels"],
        ),
    ],
)
def test_remarks(matrix, said):
    assert remarks(np.array(matrix), ["a", "b", "c"][: len(matrix)]) == said


def test_many_classes_that_are_never_predicted_are_counted():
    matrix = np.zeros((9, 9), int)
    matrix[:, 0] = 1
    assert remarks(matrix, list("abcdefghi"))[0] == "never predicted: b, c, d, e, f and 3 more"
