"""What stays on a terminal of 80 columns, and what a file gets instead."""

import io
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from lmworks.tfx import screen as screens
from lmworks.tfx.screen import Screen, fit
from tests.conftest import REPOSITORY
from tests.tfx.conftest import until
from tests.tfx.terminal import Terminal

LONG = {"loss": 0.123456789, "tokens/s": 13502, "examples/s": 1234.5678, "words": "wide 漢字かな交じり文 " * 4}


def event(done=30, total=180, unit="steps", about="", **facts):
    return {"about": about, "done": done, "total": total, "unit": unit, "facts": facts}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def terminal():
    made = Terminal(80)
    yield made
    made.close()


def test_the_live_line_stays_on_one_row(terminal):
    screen = Screen(terminal.stream)
    screen.begin("train", "changed: " + ", ".join(f"train.key_{number}" for number in range(20)))
    (begins,) = terminal.lines()
    assert begins == "train        0:00  loading libraries"
    for done in range(1, 180, 20):
        screen.progress("train", event(done, left=130.0, **LONG))
        (line,) = terminal.lines()
        assert len(line) < 80
    assert line == "train        0:00  161/180 steps (89 %)  2:10 left  loss 0.1235"
    screen.progress("train", event(3, 12, "batches", "validation at step 120 of 500"))
    assert terminal.lines() == ["train        0:00  validation at step 120 of 500: 3/12 batches (25 %)"]
    screen.result(
        "train", "made", 34.5, "22.7M parameters, 502 steps in bfloat16, best accuracy 0.8617 at step 502", "new"
    )
    assert terminal.lines() == [
        "train       made    34.5 s  22.7M parameters, 502 steps in bfloat16, best",
        "                            accuracy 0.8617 at step 502  [new]",
    ]


def test_words_that_are_too_long_are_cut_and_wide_ones_too(terminal):
    screen = Screen(terminal.stream)
    screen.say("ingest", "漢字" * 60)
    (line,) = terminal.lines()
    assert line == "ingest       " + "漢字" * 16 + "…"
    screen.clear()
    assert terminal.lines() == []


@pytest.mark.parametrize("widths", [(160, 80), (160, 40), (80, 160), (160, 60, 30, 100)])
def test_a_terminal_that_changes_its_width_keeps_no_rubbish(terminal, widths):
    terminal.resize(widths[0])
    screen = Screen(terminal.stream)
    screen.result("ingest", "cached", 1.0, "600 rows", "nothing changed")
    screen.begin("train", "first time")
    screen.progress("train", event(30, 180, left=130.0, **LONG))
    assert len(terminal.lines()) == 2
    for width in widths[1:]:
        terminal.resize(width)
    screen.progress("train", event(31, 180, left=130.0))
    above, line = terminal.lines()[:-1], terminal.lines()[-1]
    assert "".join(above).replace(" ", "") == "ingesthit1.0s600rows[nothingchanged]"
    assert line.startswith("train        0:00  31/180")
    screen.clear()
    assert terminal.lines() == above


def test_the_clock_goes_on_while_a_stage_says_nothing(terminal, monkeypatch):
    monkeypatch.setattr(screens, "_TICK_SECONDS", 0.05)
    screen = Screen(terminal.stream)
    screen.begin("train", "first time")
    screen.progress("train", event(0, None, "", "compiling"))
    end = time.monotonic() + 20
    while terminal.lines() != ["train        0:01  compiling"] and time.monotonic() < end:
        time.sleep(0.02)
    assert time.monotonic() < end
    screen.clear()
    assert terminal.lines() == []
    before = len(terminal.text)
    time.sleep(0.2)
    terminal.read()
    assert len(terminal.text) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "screen"]


def test_a_transfer_is_shown_in_place_of_the_stage_and_notes_stay(terminal):
    screen = Screen(terminal.stream)
    screen.say("train", "step 1")
    screen.say_beside("train", "upload 1/2 MB  0:01 left")
    assert terminal.lines() == ["train        upload 1/2 MB  0:01 left"]
    screen.note("s3://a: slow down; once more in 1 s")
    assert terminal.lines() == ["s3://a: slow down; once more in 1 s", "train        upload 1/2 MB  0:01 left"]
    screen.end_beside()
    assert terminal.lines()[1] == "train        step 1"
    screen.clear()
    assert terminal.lines() == ["s3://a: slow down; once more in 1 s"]


@pytest.mark.parametrize(
    ("mark", "status", "colour"), [("made", "made", 32), ("hit", "cached", 36), ("skip", "skipped", 33)]
)
def test_status_words_are_coloured_on_a_terminal(terminal, mark, status, colour, monkeypatch):
    Screen(terminal.stream).result("train", status, 1.0, "", "")
    terminal.read()
    assert f" \x1b[{colour}m{mark}\x1b[0m " in terminal.text
    assert terminal.lines() == [f"train       {mark:<4}     1.0 s"]
    monkeypatch.setenv("NO_COLOR", "1")
    before = len(terminal.text)
    Screen(terminal.stream).result("train", status, 1.0, "", "")
    terminal.read()
    assert terminal.text[before:] == f"train       {mark:<4}     1.0 s\n"


def test_a_terminal_that_is_gone_ends_no_run(terminal):
    gone = Terminal(80)
    screen = Screen(gone.stream)
    screen.begin("train", "first time")
    gone.close()
    screen.progress("train", event())
    screen.result("train", "made", 1.0, "", "")


def test_a_stage_that_fails_is_red(terminal):
    screen = Screen(terminal.stream)
    screen.begin("train", "first time")
    screen.broken("train", "fail", 2.0)
    assert terminal.lines() == ["train       fail     2.0 s"]
    assert "\x1b[31mfail\x1b[0m" in terminal.text


@pytest.mark.parametrize("kind", ["file", "dumb"])
def test_a_file_and_a_dumb_terminal_get_plain_lines(kind, terminal, monkeypatch):
    stream = io.StringIO()
    if kind == "dumb":
        monkeypatch.setenv("TERM", "dumb")
        stream = terminal.stream
    screen = Screen(stream, seconds=0.0)
    screen.begin("train", "first time")
    screen.progress("train", event(30, 180, left=130.0, **{"tokens/s": 13502}))
    screen.say_beside("train", "upload 1/2 MB")
    screen.end_beside()
    screen.note("a note")
    screen.result("train", "made", 34.5, "a summary of " + "many words " * 20, "first time")
    terminal.read()
    text = terminal.text if kind == "dumb" else stream.getvalue()
    assert text.splitlines() == [
        "train       … 30/180 steps (16 %)  2:10 left  tokens/s 13,502",
        "train       … upload 1/2 MB",
        "a note",
        "train       made    34.5 s  a summary of " + "many words " * 20 + "  [first time]",
    ]
    assert "\x1b" not in text


@pytest.mark.parametrize("name", ["FORCE_COLOR", "CLICOLOR_FORCE"])
def test_colours_can_be_forced_into_a_file(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    stream = io.StringIO()
    screen = Screen(stream)
    screen.begin("train", "first time")
    screen.result("train", "made", 1.0, "", "first time")
    assert stream.getvalue() == "train       \x1b[32mmade\x1b[0m     1.0 s  [first time]\n"
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    Screen(stream).result("train", "made", 1.0, "", "")
    assert "\x1b" not in stream.getvalue()


def test_control_characters_of_stages_do_not_reach_the_terminal(terminal):
    screen = Screen(terminal.stream)
    screen.begin("train", "\x1b[2J\x07")
    screen.progress("train", event(1, 2, "steps", "\x1b[31mred"))
    screen.say("train", "a\rb")
    screen.result("train", "made", 1.0, "sum\x1b]0;title\x07mary", "why\n")
    terminal.read()
    assert not re.findall(r"\x07|\x1b\]|\x1b\[2J|\x1b\[31m|a\rb", terminal.text)


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (99, "train  1/2 steps  0:10 left  loss 0.5  tokens/s 12"),
        (49, "train  1/2 steps  0:10 left  loss 0.5"),
        (36, "train  1/2 steps  0:10 left"),
        (20, "train  1/2 steps"),
        (10, "train  1/…"),
        (1, "…"),
    ],
)
def test_what_is_most_important_stays(cells, line):
    assert fit(["train", "1/2 steps", "0:10 left", "loss 0.5", "tokens/s 12"], cells) == line


def test_a_short_part_stays_where_a_longer_one_before_it_does_not():
    assert fit(["train", "1/2", "a part that is long", "short"], 18) == "train  1/2  short"


def test_a_run_on_a_terminal_is_seen_and_interrupted(terminal, tmp_path):
    command = [sys.executable, "-m", "tests.tfx.stages", tmp_path, "one", "yes", tmp_path / "release"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=terminal.side)
    until(lambda: terminal.lines() and "1/2 steps (50 %)" in terminal.lines()[-1])
    made, live = terminal.lines()
    assert re.fullmatch(r"write       made +[\d.]+ s  \[first time\]", made)
    assert re.fullmatch(r"learn +\d:\d\d  1/2 steps \(50 %\)  loss nan", live)
    terminal.resize(30)
    until(lambda: re.fullmatch(r"learn +\d:\d\d  1/2 steps.{0,7}", terminal.lines()[-1]))
    terminal.resize(80)
    assert len(terminal.lines()) == 2
    process.send_signal(signal.SIGINT)
    process.wait(60)
    lines = terminal.lines()
    assert lines[0] == made
    assert re.fullmatch(r"learn       stop +[\d.]+ s", lines[1])
    assert not [line for line in lines if "stopping" in line or "steps" in line]
