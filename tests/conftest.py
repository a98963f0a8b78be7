"""What several tests share: the command as a user runs it, and one whole run."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Run:
    """configs/tiny.yaml through all five stages, each in its process. Tests that change the root copy it."""
    root = tmp_path_factory.mktemp("tiny")
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={root}")
    assert done.returncode == 0, done.stderr
    return Run(root, root / "tiny", done.stderr)


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
def _no_surprises(monkeypatch):
    """A test neither fetches nor reads this person's cache unless it says so."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert os.environ.get("LMWORKS_PROGRESS_FD") is None
