"""A stage that ends without a word is described by what is known: how it ended, and the last lines of its log."""

import os
import re
import runpy
import signal
import sys

import pytest
from pydantic import BaseModel

from lmworks.tfx import last_words
from lmworks.tfx.artifacts import Examples
from lmworks.tfx.component import Node, Output, component
from lmworks.tfx.local import LocalRunner, StageError
from tests.conftest import REPOSITORY


class Code(BaseModel):
    """Code that a person wrote."""

    path: str


@component
def call(config: Code, examples: Output[Examples]) -> None:
    """Runs it, as train runs a callback."""
    runpy.run_path(config.path, run_name="cb2")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("json.loads('{')", "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import sys; print('unrelated'); sys.exit(3)", "ended itself with exit code 3"),
        ("raise SystemExit", "ended itself with exit code 0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_process", [False, True])
def test_an_error_in_code_of_the_person_says_where(tmp_path, line, reason, in_process, monkeypatch):
    if not in_process and "exit(3)" not in line:
        pytest.skip("the same as in this process")
    (tmp_path / "cb2.py").write_text(f"import json\n\n\n{line}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with pytest.raises(StageError) as caught:
        LocalRunner(tmp_path, "run", {}, in_process).execute([Node(call, Code(path=str(tmp_path / "cb2.py")))])
    assert str(caught.value).startswith(f"call: {reason} (cb2.py:4)")


class End(BaseModel):
    """By a signal."""

    number: int


@component
def vanish(config: End, examples: Output[Examples]) -> None:
    """Ends this process as a library in C does."""
    if config.number != signal.SIGKILL:
        print("".join(f"line {number}\n" for number in range(9)), "é" * 1000, file=sys.stderr, flush=True)
        os.write(2, b"I0000 00:00:1795850202.809369   25383 port.cc:153] oneDNN custom operations are on.\n")
    os.kill(os.getpid(), config.number)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (
            signal.SIGABRT,
            r"vanish: ended by signal 6 \(SIGABRT\); the last lines of its log: line 7 \| line 8 \| é{200}…",
        ),
        (
            signal.SIGKILL,
            r"vanish: ended by signal 9 \(SIGKILL, as the system does when memory runs out\); its log is empty",
        ),
    ],
)
def test_a_stage_that_dies_is_described(tmp_path, number, expected):
    with pytest.raises(StageError) as caught:
        LocalRunner(tmp_path, "run", {}).execute([Node(vanish, End(number=number))])
    assert re.fullmatch(rf"{expected} \(log: {tmp_path}/run/vanish/log.txt\)", str(caught.value))


def test_exit_codes_and_signals_have_names():
    assert last_words.how_it_ended(3) == "exit code 3"
    assert last_words.how_it_ended(-signal.SIGSEGV) == "ended by signal 11 (SIGSEGV)"
    assert last_words.how_it_ended(-50) == "ended by signal 50"
