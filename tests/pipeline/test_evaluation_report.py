"""metrics.json, the summary and report.html."""

import datetime
import html.parser
import json

import numpy as np
import pytest

from lmworks.pipeline.evaluate.classification import confusion, figures
from lmworks.pipeline.evaluate.figures import confusion_png
from lmworks.pipeline.evaluate.gate import Gate
from lmworks.pipeline.evaluate.report import shown, summary, write_metrics, write_report
from lmworks.pipeline.evaluate.slices import measure_slices

EVIL = """<script>alert("x")</script><img src=x onerror='alert(1)'>&amp;"""
OPEN = Gate(True, ["no thresholds set"], 0)
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


def report(folder, labels, scores, names, columns=None, texts=None, decision=OPEN):
    metrics = figures(labels, scores, names)
    slices = measure_slices(columns or {}, labels, scores, names)
    texts = texts or [f"text {row}" for row in range(len(labels))]
    ids = [f"{row:016x}" for row in range(len(labels))]
    write_report(folder, "text_classification", "test", metrics, slices, labels, scores, names, texts, ids, decision)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def reject(constant):
    raise AssertionError(constant)


def test_metrics_json(tmp_path):
    labels, scores, names = case()
    metrics = figures(labels, scores, names)
    day = datetime.date(2026, 1, 2)
    columns = {"ünï": [None, float("nan")] * 20, "day": [day] * 40}
    slices = measure_slices(columns, labels, scores, names)
    write_metrics(tmp_path, "text_classification", "test", 40, metrics, slices)
    content = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"), parse_constant=reject)
    assert list(content) == ["task", "split", "examples", "metrics", "slices"]
    assert content["examples"] == 40
    assert content["metrics"]["accuracy"]["value"] == metrics["accuracy"]["value"]
    assert [part["slice"] for part in content["slices"]] == [{"ünï": None}, {"ünï": "nan"}, {"day": "2026-01-02"}]
    every = [figure for part in (content, *content["slices"]) for figure in part["metrics"].values()]
    bounded = [figure for figure in every if "ci95" in figure]
    assert len(bounded) > len(every) / 2
    assert all(figure["ci95"][0] <= figure["value"] <= figure["ci95"][1] for figure in bounded)


def test_metrics_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(tmp_path, "text_classification", "test", 1, {"accuracy": {"value": float("nan")}}, [])
    assert not (tmp_path / "metrics.json").exists()


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
    page = report(tmp_path, np.array([0, 1, 1]), perfect, ["a", "b"])
    assert "None of 3 rows is wrong" in page.text
    assert "nan" not in page.text


def test_a_dash_stands_where_the_rows_say_nothing(tmp_path):
    assert shown({"value": 0.5, "ci95": (0.4, 0.6)}) == "0.5000 [0.4000, 0.6000]"
    assert shown({"value": 0.5}) == "0.5000 [–]"
    assert shown(None) == "–"
    labels, scores, names = case(3, 60)
    labels = np.where(labels == 2, 0, labels)
    page = report(tmp_path, labels, scores, names, {"half": ["x"] * 30 + ["y"] * 30})
    classes = page.text[page.text.index("Classes") : page.text.index("Slices")]
    predicted = int((scores.argmax(1) == 2).sum())
    assert classes.endswith(f"class 20{predicted}–––")
    assert "0.0000 [0.0000" not in page.text


def test_report_and_summary_say_what_is_remarkable_and_what_the_gate_decided(tmp_path):
    labels = np.arange(60) % 3
    scores = np.tile(np.array([0.2, 0.7, 0.1], np.float32), (60, 1))
    page = report(tmp_path, labels, scores, ["a", "b", "c"])
    for expected in ("never predicted: a, c", "b gets 100% of the predictions and has 33% of the labels"):
        assert expected in page.text
    assert "no thresholds set" in page.text
    assert "blessed" not in page.text
    page = report(tmp_path, labels, scores, ["a", "b", "c"], decision=Gate(False, ["accuracy 0.3 is below <1>"], 1))
    assert "NOT blessedaccuracy 0.3 is below <1>" in page.text
    metrics = {"accuracy": {"value": 0.5}, "f1_macro": {"value": 0.4, "ci95": (0.3, 0.5)}}
    line = summary(
        metrics, ("accuracy", "f1_macro", "loss"), Gate(True, ["no thresholds set"], 0), ["never predicted: a"]
    )
    assert line == "accuracy 0.5000 [–], f1_macro 0.4000 [0.3000, 0.5000], never predicted: a, no thresholds set"
