"""Pages for people: readable at any width, names of columns over their values, nothing of a text becomes markup."""

from lmworks.pipeline.evaluate.gate import Gate
from lmworks.pipeline.evaluate.report import gate_section, shown
from lmworks.pipeline.page import cell, page, table


def test_a_page_fits_a_telephone_and_the_dark():
    content = page("A <title>", {"Rows": table(("name", "rows"), [[cell("x & y"), cell(1234)]])})
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in content
    assert "prefers-color-scheme:dark" in content
    assert "<h1>A &lt;title&gt;</h1>" in content
    # A table that is too wide scrolls in its own box, not with the page.
    assert '<div class="wide"><table>' in content


def test_names_of_numbers_stand_over_them():
    content = table(("name", "rows", "share", "id"), [[cell("x"), cell(1234), cell(0.5), cell("a1", "note")]])
    assert "<th>name</th><th class=n>rows</th><th class=n>share</th><th>id</th>" in content
    assert '<td class="n">1,234</td><td class="n">0.5000</td>' in content
    assert "<th>name</th><th>rows</th>" in table(("name", "rows"), [])


def test_a_value_and_its_interval_are_one_and_large_ones_are_short():
    assert shown({"value": 66.543219, "ci95": (5.4321, 12345.678)}) == "66.54 [5.4321, 12,346]"


def test_a_model_that_is_refused_is_seen_at_once():
    assert '<p class="bad">NOT blessed</p>' in gate_section(Gate(False, ["accuracy 0.5 is below the minimum 0.9"], 1))
    assert 'class="bad"' not in gate_section(Gate(True, ["no thresholds set"], 0))
