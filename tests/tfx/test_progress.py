"""What a stage says of its progress: events for the runner, lines for a log."""

import json
import math
import os
import re

import pytest

from lmworks.tfx import progress


@pytest.fixture
def events(monkeypatch):
    """Returns the events that were sent so far."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    monkeypatch.setenv(progress.ENVIRONMENT, str(write_end))
    monkeypatch.setattr(progress, "_last", 0.0)
    with os.fdopen(read_end) as source:
        yield lambda: [json.loads(line) for line in source.read().splitlines()]
    os.close(write_end)


def test_the_time_left_follows_from_the_speed(events, monkeypatch):
    now = iter([100.0, 110.0, 120.0, 130.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    for done in (0, 10, 20):
        progress.report(done, 100, "rows", speed=2.0)
    progress.report(100, 100, "rows")
    told = events()
    assert [event["facts"].get("left") for event in told] == [None, 90.0, 80.0, None]
    assert list(told[1]["facts"]) == ["left", "speed"]
    assert [progress.line(event) for event in told] == [
        "0/100 rows (0 %)  speed 2",
        "10/100 rows (10 %)  1:30 left  speed 2",
        "20/100 rows (20 %)  1:20 left  speed 2",
        "100/100 rows (100 %)",
    ]


def test_a_part_of_a_stage_has_a_name_a_clock_and_the_first_word(events):
    progress.report(1, 500, "steps")
    with progress.within("validation at step 1 of 500"):
        progress.report(3, 12, "rows")  # at once, though it follows closely
        progress.report(4, 12, "rows")  # throttled
        progress.doing("writing a sample")
    progress.report(2, 500, "steps")
    assert [progress.line(event) for event in events()] == [
        "1/500 steps (0 %)",
        "validation at step 1 of 500: 3/12 rows (25 %)",
        "validation at step 1 of 500, writing a sample",
        "2/500 steps (0 %)",
    ]


def test_a_share_is_never_rounded_up_to_all():
    assert (
        progress.line({"about": "", "done": 999, "total": 1000, "unit": "rows", "facts": {}}) == "999/1,000 rows (99 %)"
    )


def test_a_log_gets_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "_last", 0.0)
    progress.doing("loading bert_tiny")
    progress.report(1, None, "rows", loss=0.123456789012)
    assert capsys.readouterr().err == "loading bert_tiny\n1 rows  loss 0.1235\n"
    assert progress.descriptors() == []


def test_what_another_wrote_does_not_reach_the_terminal():
    facts = {"left": math.inf, "\x1b[2J": "a\nb", "loss": [1]}
    event = {"about": "\x1b]0;title\x07", "done": -1, "total": 3, "unit": "\r", "facts": facts}
    assert not re.findall(r"[\x00-\x1f]", progress.line(event))
