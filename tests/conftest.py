"""What several tests share: the command as a user runs it, and one whole run."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmworks.tfx.tensorflow_logs import LEVEL
from tests.stores import SECRETS, flaky, machine

REPOSITORY = Path(__file__).parents[1]


# A shell starts what it puts into the background with Ctrl-C ignored, and so would be every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--update_golden", action="store_true", help="write the golden files anew")


def lmworks(*arguments: str, stdin: str = "", **options) -> subprocess.CompletedProcess:
    """Runs the command from the repository's root."""
    command = [sys.executable, "-m", "lmworks.pipeline.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, input=stdin, check=False, **options)


@dataclass(frozen=True)
class Run:
    """A finished run."""

    root: Path
    folder: Path
    stderr: str
    stdout: str


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Run:
    """configs/tiny.yaml through all five stages, each in its process. Tests that change the root copy it."""
    root = tmp_path_factory.mktemp("tiny")
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={root}")
    assert done.returncode == 0, done.stderr
    return Run(root, root / "tiny", done.stderr, done.stdout)


@pytest.fixture(scope="session")
def task_sequences(tiny, tmp_path_factory) -> dict[str, Path]:
    """A folder with the artifact `Sequences` of each task, small."""
    from tests.pipeline.corpora import corpus  # imports TensorFlow

    folder = tmp_path_factory.mktemp("sequences")
    (folder / "text_classification").symlink_to((tiny.folder / "preprocess" / "sequences").resolve())
    for task in ("causal_lm", "masked_lm"):
        _, sequences = corpus(folder / f"{task}-corpus", task, 32)
        (folder / task).symlink_to(sequences.path)
    return {task: folder / task for task in ("text_classification", "causal_lm", "masked_lm")}


@pytest.fixture(autouse=True)
def _what_tensorflow_logs():
    """Takes back what `--verbosity=1` of a command in this process says to all processes after it."""
    before = os.environ.get(LEVEL)
    yield
    if before is None:
        os.environ.pop(LEVEL, None)


@pytest.fixture(autouse=True)
def _no_surprises(monkeypatch):
    """A test neither fetches nor reads this person's cache unless it says so."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert os.environ.get("LMWORKS_PROGRESS_FD") is None


@pytest.fixture(scope="module")
def moto():
    """An S3 on loopback; its address."""
    import logging
    import threading

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = flaky(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def s3(moto, monkeypatch, tmp_path):
    """A bucket of this test: fsspec's view of it, whose `url` is a root."""
    import s3fs

    from lmworks.tfx import transfer

    for name, value in {**SECRETS, "AWS_ENDPOINT_URL": moto}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(transfer, "WAIT_SECONDS", 0.01)
    machine(monkeypatch, tmp_path, 1)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    system = s3fs.S3FileSystem(use_listings_cache=False)
    system.mkdir(bucket)
    system.url = f"s3://{bucket}/runs"
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
