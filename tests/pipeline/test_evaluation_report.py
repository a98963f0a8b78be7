"""metrics.json, the blessing and report.html."""

import datetime
import html.parser
import json

import numpy as np
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import Threshold
from lmworks.pipeline.evaluate.classification import confusion, figures
from lmworks.pipeline.evaluate.figures import confusion_png
from lmworks.pipeline.evaluate.report import blessing, write_metrics, write_report
from lmworks.pipeline.evaluate.slices import measure_slices

EVIL = """<script>alert("x")</script><img src=x onerror='alert(1)'>&amp;"""
VOID = {"meta", "rect", "circle", "path"}


def case(classes=2, rows=40):
    labels = np.arange(rows) % classes
    scores = np.random.default_rng(0).dirichlet(np.ones(classes), rows).astype(np.float32)
    return labels, scores, [f"class {index}" for index in range(classes)]


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def report(folder, labels, scores, names, columns=None, texts=None, replicates=20):
    metrics = figures(labels, scores, names, replicates, 0)
    slices = measure_slices(columns or {}, labels, scores, names, replicates, 0)
    texts = texts or [f"text {row}" for row in range(len(labels))]
    ids = [f"{row:016x}" for row in range(len(labels))]
    write_report(folder, "text_classification", "test", metrics, slices, labels, scores, names, texts, ids)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def reject(constant):
    raise AssertionError(constant)


@pytest.mark.parametrize("replicates", [0, 20])
def test_metrics_json(tmp_path, replicates):
    labels, scores, names = case()
    metrics = figures(labels, scores, names, replicates, 0)
    day = datetime.date(2026, 1, 2)
    columns = {"ünï": [None, float("nan")] * 20, "day": [day] * 40}
    slices = measure_slices(columns, labels, scores, names, replicates, 0)
    write_metrics(tmp_path, "text_classification", "test", 40, metrics, slices)
    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"), parse_constant=reject)
    assert list(content) == ["task", "split", "examples", "metrics", "slices"]
    assert content["examples"] == 40
    assert content["metrics"]["accuracy"]["value"] == metrics["accuracy"]["value"]
    assert [part["slice"] for part in content["slices"]] == [{"ünï": None}, {"ünï": "nan"}, {"day": "2026-01-02"}]
    every = [figure for part in (content, *content["slices"]) for figure in part["metrics"].values()]
    assert all(("ci95" in figure) == bool(replicates) for figure in every)
    if replicates:
        assert all(low <= high for low, high in (figure["ci95"] for figure in every))


def test_metrics_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(tmp_path, "text_classification", "test", 1, {"accuracy": {"value": float("nan")}}, [])
    assert not (tmp_path / "metrics.json").exists()


METRICS = {"accuracy": {"value": 0.87, "ci95": (0.8, 0.9)}, "log_loss": {"value": 0.3}, "f1/a b": {"value": 0.5}}


@pytest.mark.parametrize(
    ("thresholds", "blessed", "reasons"),
    [
        ({}, True, ["no thresholds"]),
        ({"accuracy": {"min": 0.87}}, True, ["accuracy 0.87 is at least the minimum 0.87"]),
        ({"accuracy": {"max": 0.87}}, True, ["accuracy 0.87 is at most the maximum 0.87"]),
        ({"accuracy": {"min": 0.8701}}, False, ["accuracy 0.87 is below the minimum 0.8701"]),
        (
            {"accuracy": {"min": 0.5}, "log_loss": {"max": 0.2}, "f1/a b": {"min": 0.6, "max": 0.9}},
            False,
            ["log_loss 0.3 is above the maximum 0.2", "f1/a b 0.5 is below the minimum 0.6"],
        ),
        ({"accuracy": {"min": float("nan")}}, False, ["accuracy 0.87 is below the minimum nan"]),
    ],
)
def test_blessing(thresholds, blessed, reasons):
    assert blessing(METRICS, {name: Threshold(**bounds) for name, bounds in thresholds.items()}) == (blessed, reasons)


def test_blessing_names_the_nearest_metric():
    with pytest.raises(UserError, match="no metric 'acuracy'; the nearest is 'accuracy'"):
        blessing(METRICS, {"acuracy": Threshold(min=0.5)})


def test_report_shows_what_was_measured(tmp_path):
    labels, scores, names = case(3)
    page = report(tmp_path, labels, scores, names, {"source": ["web", None] * 20})
    assert page.tags.count("svg") == 1
    assert "script" not in page.tags
    assert not [value for name, value in page.attributes if name in ("src", "href")]
    accuracy = (scores.argmax(axis=1) == labels).mean()
    for expected in (
        f"{accuracy:.4f} [",
        "f1_weighted",
        "class 2",
        'source = "web"',
        "source = null",
        "calibration error",
    ):
        assert expected in page.text
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    worst = wrong[scores.max(axis=1)[wrong].argmax()]
    section = page.text[page.text.index("Most confidently wrong") :]
    assert section.index(f"text {worst}class") == min(section.index(f"text {row}class") for row in wrong)


def test_report_escapes_texts_names_and_slices(tmp_path):
    labels, scores, _ = case()
    page = report(tmp_path, labels, scores, [EVIL, "$x_{"], {EVIL: [EVIL] * 40}, [EVIL] * 40)
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count(EVIL) >= 3
    assert confusion_png(confusion(labels, scores.argmax(axis=1), 2), [EVIL, "$x_{"]).startswith(b"\x89PNG")


def test_report_of_many_classes_long_texts_and_no_mistake(tmp_path):
    labels, scores, names = case(200, 400)
    page = report(tmp_path, labels, scores, names, texts=["long " * 1000] * 400)
    assert "most frequent confusions" in page.text
    assert (tmp_path / "report.html").stat().st_size < 500_000
    assert confusion_png(confusion(labels, scores.argmax(axis=1), 200), names).startswith(b"\x89PNG")
    perfect = np.eye(2, dtype=np.float32)[[0, 1, 1]]
    page = report(tmp_path, np.array([0, 1, 1]), perfect, ["a", "b"], replicates=0)
    assert "0 of 3 rows are wrong" in page.text
    assert "nan" not in page.text
