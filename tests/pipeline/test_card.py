"""The model card reads as it was meant, whatever the labels are, in the renderers of CommonMark and of Python-Markdown."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import markdown
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lmworks.configs.schema import ExportStage
from lmworks.pipeline.export.card import Described, model_card
from lmworks.pipeline.markdown import code_block, escaped
from lmworks.tfx.artifacts import Evaluation, Model

EVIL = ["<script>alert(1)</script>", "a|b", "`rm`", "two\nlines\n\n# Head", "[x](javascript:alert(1))", "**b** _i_ ~s~", "\\|",
        "&lt;b&gt; &#60;", "![x](http://h/x.png)", "<!-- x", "$x$", "@me #1 https://h www.h.com", "\x1b[31m\u202eabc", "```", "]]>",
        "{: .x}", "<b", '" onload="x', "| | |", "\u200b", "1. a", "---"]  # fmt: skip
LABELS = (
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).map(str.strip).filter(bool)
)  # as ingest has them
RENDERERS = {
    "CommonMark": MarkdownIt("commonmark", {"html": True}).enable("table").render,
    "Python-Markdown": lambda text: markdown.markdown(text, extensions=["extra"]),
}


class Page(HTMLParser):
    """Tags with their attributes, and the texts of cells, items and paragraphs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[object] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))
        if tag in ("td", "li", "p"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data

    def handle_comment(self, data: str) -> None:
        self.tags.append(f"comment {data}")


def card(labels: list[str]) -> str:
    """The card of a classifier of these labels; the last has no rows in the test split."""
    with TemporaryDirectory() as folder:
        measured = {
            f"{kind}/{label}": {"value": 0.5, "ci95": [0.25, 0.75]}
            for kind in ("recall", "f1")
            for label in labels[:-1]
        }
        metrics = {"metrics": {"accuracy": {"value": 0.5}, **measured}, "split": "test", "examples": 9}
        Path(folder, "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False), encoding="utf-8")
        reasons = [f"f1/{label}: 0.5 is below 0.9" for label in labels]
        Path(folder, "blessing.json").write_text(json.dumps({"blessed": False, "reasons": reasons}))
        about = f"Text classification into {', '.join(map(escaped, labels))}."
        described = Described(None, None, 9, {}, about, "served()", tuple(labels))
        return model_card(
            ExportStage.model_validate({"task": "text_classification", "name": "x"}),
            described,
            Model(Path(folder), {"precision": "float32"}),
            Evaluation(Path(folder)),
            {"rows": 9, "largest_difference": 1e-7},
        )


def visible(text: str) -> str:
    """A label as a person can read it in one line."""
    line = " ".join(text.split())
    return "".join(each if each.isprintable() or each in "\u200c\u200d" else "\ufffd" for each in line)


@pytest.mark.parametrize("renderer", RENDERERS)
@settings(max_examples=25, deadline=None)
@example(EVIL)
@given(st.lists(LABELS, min_size=2, max_size=3, unique=True))
def test_no_label_changes_what_the_card_says(renderer, labels):
    page = Page(RENDERERS[renderer](card(labels)))
    plain = Page(RENDERERS[renderer](card([f"label{number}" for number in range(len(labels))])))
    assert page.tags == plain.tags
    said = [" ".join(text.split()) for text in page.texts]
    shown = [" ".join(visible(label).split()) for label in labels]
    for label in shown[:-1]:
        assert f"recall/{label}" in said
        assert f"f1/{label}" in said
    assert f"precision, recall, f1/{shown[-1]}" in said
    assert all(f"f1/{label}: 0.5 is below 0.9" in said for label in shown)
    assert any(f"Text classification into {', '.join(shown)}. Trained" in text for text in said)


def test_plain_words_stay_as_they_are():
    for text in ("f1_macro", "very good", "log_loss 0.5 is below 0.9", "a (b); c, d: e/f", "naïve 日本"):
        assert escaped(text) == text


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_sample_of_a_model_is_shown_unchanged(renderer):
    sample = "A # b\n\n# c <script>x</script> **d**\n    e `f`\n- g"
    page = Page(f"<p>{RENDERERS[renderer](code_block(sample))}")
    assert [tag for tag, _ in page.tags] == ["p", "pre", "code"]
    assert page.texts[0].rstrip("\n") == sample
