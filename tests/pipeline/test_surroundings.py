"""The person's folder, locale, environment and streams end no command, and come to light in no file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmworks.configs.errors import UserError
from lmworks.tfx.personal_cache import personal_cache
from lmworks.tfx.surroundings import working_directory_last
from lmworks.tfx.tensorflow_logs import LEVEL, is_noise
from tests.conftest import REPOSITORY

COMMAND = Path(sys.executable).with_name("lmworks")
HOSTILE = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "TF_USE_LEGACY_KERAS": "1",
    "KERAS_BACKEND": "nonsense",
    "KERAS_MAX_EPOCHS": "many",
    "HOME": "/proc",
    "TMPDIR": "/nowhere",
    "https_proxy": "http://127.0.0.1:1",
}
"""Of another program, or of nobody who would run this one."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A person's folder, whose files have the names of modules that we and our libraries import."""
    for name in ("random", "keras", "yaml", "lmworks", "numpy", "json", "logging", "tensorflow", "pyarrow"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the person was imported')")
    (tmp_path / "lmworks").mkdir()
    (tmp_path / "lmworks" / "__init__.py").write_text("raise SystemExit('a folder of the person was imported')")
    return tmp_path


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a line of bash, in which $LMWORKS is the console command."""
    environment = {**os.environ, "LMWORKS": str(COMMAND), **environment}
    environment.pop("XDG_CACHE_HOME", None)
    environment.pop(LEVEL, None)  # which JAX sets to 1 for this process and all its children
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, check=False)


def test_a_run_among_hostile_surroundings_writes_utf8(folder):
    reviews = (REPOSITORY / "configs/tiny/reviews.csv").read_text(encoding="utf-8")
    (folder / "ü.csv").write_text(reviews.replace("positive", "schön €"), encoding="utf-8")
    recipe = f"--config={REPOSITORY}/configs/tiny.yaml --set=ingest.train=ü.csv --until=ingest --root=ö"
    # Streams that are closed or full too: what is opened next must not get their numbers and take what libraries print.
    done = shell(f"umask 077; $LMWORKS run {recipe} && $LMWORKS run {recipe} <&- >/dev/full 2>&-", folder, **HOSTILE)
    assert (done.returncode, done.stdout.decode()) == (0, "ö/tiny\n"), done.stderr
    assert done.stderr.decode().startswith("ingest      made")
    files = [path for path in (folder / "ö").rglob("*") if path.suffix in (".json", ".txt", ".html")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    assert any("schön €" in text or "sch\\u00f6n \\u20ac" in text for text in texts)
    assert (
        json.loads((folder / "ö/tiny/run.json").read_text(encoding="utf-8"))["stages"]["ingest"]["status"] == "cached"
    )


def test_answers_come_alone_and_in_utf8(tiny, folder):
    """With TensorFlow and Keras in this process; their greetings are shown with --verbosity=1 only."""
    (folder / ".keras").mkdir()
    (folder / ".keras" / "keras.json").write_text('{"floatx": "nonsense", "epsilon": 1}')
    line = f"$LMWORKS predict --servable={tiny.folder}/export/servable --text='Schön €'"
    done = shell(line, folder, **{**HOSTILE, "HOME": str(folder)})
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert json.loads(done.stdout)["text"] == "Schön €"


def test_streams_that_are_full_closed_or_read_no_longer(tmp_path):
    full = "standard output cannot be written: No space left on device\n"
    for line, code, output, errors in [
        ("$LMWORKS --help >/dev/full", 1, "", f"lmworks: {full}"),
        ("$LMWORKS schema >&-", 1, "", "lmworks schema: standard output cannot be written: it is closed\n"),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 $LMWORKS schema <&- >&-", 1, "", "lmworks schema: standard output cannot be written: it is closed\n"),
        ("$LMWORKS nonsense 2>/dev/full", 2, "", ""),
        ("$LMWORKS schema | head -1; exit ${PIPESTATUS[0]}", 0, "{\n", ""),
        ("mkdir gone; cd gone; rmdir ../gone; $LMWORKS runs", 1, "", "lmworks: the working directory was removed; change to another folder\n"),
    ]:  # fmt: skip
        done = shell(line, tmp_path)
        assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (code, output, errors), line


LIBRARY = """
import os
os.write(2, b"I0000 00:00:1795850202.809369   25383 port.cc:153] oneDNN custom operations are on.\\nhalf of a")
os.write(2, b" line\\nF0000 00:00:1795850202.81   25383 x.cc:1] Check failed\\n")
os.abort()
"""


@pytest.mark.parametrize(("level", "expected"), [("2", 2), ("0", 3)])
def test_what_a_library_says_before_it_crashes_is_seen(tmp_path, level, expected):
    """In place of TensorFlow, whose crash cannot be ordered."""
    (tmp_path / "tensorflow.py").write_text(LIBRARY)
    code = "from lmworks.tfx import tensorflow_logs; tensorflow_logs.quiet(); import tensorflow"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": level, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, cwd=tmp_path, check=False)
    assert done.stderr.endswith(b"half of a line\nF0000 00:00:1795850202.81   25383 x.cc:1] Check failed\n")
    assert len(done.stderr.splitlines()) == expected


def test_noise_is_told_from_errors():
    greeting = b"E0000 00:00:1795850739.32    1139 cuda_platform.cc:52] "
    assert is_noise(
        greeting + b"failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)"
    )
    assert is_noise(b"2026-11-28 07:00:00.123456: W tensorflow/core/x.cc:1] slow")
    assert not is_noise(greeting + b"CUDA_ERROR_OUT_OF_MEMORY: out of memory")
    assert not is_noise(b"2026-11-28 07:00:00.123456: F tensorflow/core/x.cc:1] needs AVX")
    assert not is_noise(b"Traceback (most recent call last):")


def test_modules_of_the_person_come_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/installed"])
    working_directory_last()
    working_directory_last()
    assert sys.path == ["/installed", str(tmp_path)]


def test_every_process_is_started_without_the_working_directory():
    """`process.python` does it; nothing else knows the interpreter."""
    users = {
        path.name
        for folder in ("configs", "models", "tfx", "pipeline")
        for path in (REPOSITORY / folder).rglob("*.py")
        if "sys.executable" in path.read_text(encoding="utf-8")
    }
    assert users == {"process.py", "tensorflow_logs.py"}


def test_without_a_home_the_cache_must_be_named(monkeypatch):
    monkeypatch.setenv("HOME", "~")  # as expanduser answers where the system does not know the user
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match=r"there is no home folder.*XDG_CACHE_HOME"):
        personal_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert personal_cache() == Path("/cache/lmworks")
