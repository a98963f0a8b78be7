"""TensorBoard for real: what it says over HTTP about finished and live runs."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from lmworks.tfx import board
from lmworks.tfx.local import StageError
from tests.conftest import REPOSITORY, lmworks
from tests.tfx import stages
from tests.tfx.conftest import until


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def shown(links):
    return {path.name: path.resolve() for path in links.iterdir()}


def test_tensorboard_shows_finished_and_live_runs_by_name(tmp_path, start, port):
    stages.run(tmp_path, "finished", "word")
    command = [sys.executable, "-m", "lmworks.pipeline.main", "board", f"--root={tmp_path}", f"--port={port}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path):
        try:
            with direct.open(f"http://localhost:{port}/data/{path}", timeout=10) as answer:
                return json.load(answer)
        except ConnectionError:  # a busy machine
            return None

    def steps():
        try:
            return [step for _, step, _ in ask("plugin/scalars/scalars?run=live&tag=train/yes") or ()]
        except urllib.error.HTTPError:  # not known yet, or not for one round
            return []

    try:
        assert f"http://localhost:{port}/" in process.stdout.readline()
        until(lambda: ask("runs") == ["finished"])
        assert list(until(lambda: ask("plugin/scalars/tags"))["finished"]) == ["train/word"]
        start("live")
        until(lambda: ask("runs") == ["finished", "live"])
        until(lambda: steps() == [1])
        (tmp_path / "release").touch()
        until(lambda: steps() == [1, 2])
        taken = lmworks("board", f"--root={tmp_path}", f"--port={port}")
        assert (taken.returncode, taken.stderr.count("\n")) == (2, 1)
        assert "give another --port" in taken.stderr
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("localhost", port), timeout=5)


def test_links_follow_the_runs(tmp_path):
    root, links, known = tmp_path / "runs", tmp_path / "links", {}
    links.mkdir()
    stages.run(root, "one", "first")
    board.link(root, links, known)
    first = shown(links)["one"]
    assert first == (root / "one" / "learn" / "logs").resolve()
    with pytest.raises(StageError):
        stages.run(root, "one", "bad")
    board.link(root, links, known)
    assert shown(links) == {}  # another curve: for one round TensorBoard sees none, and forgets the former
    board.link(root, links, known)
    assert shown(links)["one"].is_relative_to(root / "state" / "learn")
    stages.run(root, "two", "first")
    board.link(root, links, known)
    assert shown(links)["two"] == first
    before = {path.name: path.lstat().st_ino for path in links.iterdir()}
    board.link(root, links, known)
    assert {path.name: path.lstat().st_ino for path in links.iterdir()} == before


@pytest.mark.parametrize(("folder", "words"), [("none", "no such folder"), ("", "no runs yet")])
def test_nothing_to_show_is_one_line(tmp_path, folder, words):
    done = lmworks("board", f"--root={tmp_path / folder}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr
