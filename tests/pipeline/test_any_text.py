"""Whatever text the command line or a recipe holds: an exit code, and one clear message in place of a traceback."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lmworks.configs.load import paths_of
from lmworks.configs.schema import Config
from lmworks.pipeline.main import main

RECIPE = """\
name: x
task: text_classification
ingest:
  train: &rows train.csv
  validation: *rows
  test: {path: train.csv, format: csv}
preprocess: {sequence_length: 32, deduplicate: true}
model: {preset: nowhere, dropout: 0.1}
train: {epochs: 1.5, learning_rate: 2.0e-3, batch_size: auto, callbacks: ['a:b']}
evaluate: {slices: [label], thresholds: {accuracy: {min: 0.9}}}
"""
ROWS = "text,label\n" + "".join(f"film {number},{'pos' if number % 2 else 'neg'}\n" for number in range(8))
# No `**`, which would read the whole machine, and no URL of a store, which would go out to the network.
FRAGMENTS = [
    "../", "/", ".", "~", "$HOME", "$NOWHERE", "${", "\0", "\n", "\t", "\x1b[31m", "\u202e", "\ud800", "\udcff", "'", '"', "{", "}", "[", "]",
    ":", ": ", ", ", "&a ", "*a", "<<: ", "!!int ", "!!timestamp ", "!!python/object:os.abort ", "? ", "- ", "| ", "> ", "# ", "%", "@", "`",
    "0x", "1e", "9" * 30, ".nan", "-", "_", "=", "null", "true", "a", "é", "train", "store", "*", "?", "memory://", "file:", " ", "😀", "x" * 300,
]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=12).map(os.fsdecode),  # as Python reads arguments that are no UTF-8
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join),
)
KEYS = sorted(paths_of(Config))
few = settings(max_examples=int(os.environ.get("LMWORKS_EXAMPLES", "40")), deadline=None)


@pytest.fixture(scope="module", autouse=True)
def outer(tmp_path_factory):
    """A folder with an empty home and a working folder, in which alone something may be made."""
    outer = tmp_path_factory.mktemp("outer")
    (outer / "home").mkdir()
    (outer / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(outer / "work")
        patch.setenv("HOME", str(outer / "home"))
        patch.delenv("NOWHERE", raising=False)
        Path("train.csv").write_text(ROWS)
        Path("c.yaml").write_text(RECIPE)
        yield outer


def run(outer: Path, *arguments: str) -> int:
    """Exit code of a command, in this process, on the streams that a command has."""
    stdout = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stderr = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    before = os.environ.copy()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main(arguments)
    stderr.flush()
    message = stderr.buffer.getvalue().decode("utf-8")
    assert code in (0, 1, 2), message
    assert "Traceback" not in message
    if code:
        assert [line for line in message.splitlines() if line.startswith(f"lmworks {arguments[0]}: ")], message
        assert len(message) < 20_000
    assert sorted(os.listdir(outer)) == ["home", "work"]
    assert not os.listdir(outer / "home")
    assert os.environ.copy() == before
    return code


def ingest(outer: Path, *arguments: str, config: str = "c.yaml") -> int:
    return run(outer, "run", f"--config={config}", "--until=ingest", "--in_process", *arguments)


def test_the_recipe_runs(outer):
    assert ingest(outer) == 0


@few
@given(st.sampled_from(KEYS), TEXTS)
@example("train.seed", "0x" + "f" * 5000)
@example("ingest.labels", "[!!timestamp 2024-99-99]")
def test_any_value_of_any_key(outer, key, value):
    code = ingest(outer, f"--set={key}={value}")
    assert code != 1 or key.startswith("ingest."), "only what ingest reads can be wrong in ingest"


@few
@given(TEXTS, TEXTS)
@example("a" * 9 + ".a" * 999, "1")
def test_any_key(outer, key, value):
    ingest(outer, f"--set={key}={value}")
    ingest(outer, f"--set={key}")


@few
@given(TEXTS)
@example("metadata.sqlite")
@example("Store")
def test_any_name_of_a_run(outer, name):
    assert ingest(outer, f"--run={name}") in (0, 2)
    run(outer, "runs", name)


@settings(few, max_examples=few.max_examples // 3)  # each makes a root
@given(TEXTS)
@example("s3://")
@example("memory://x")
@example("c.yaml")
@example("x" * 300)
def test_any_root(outer, root):
    assume("file:" not in root)
    run(outer, "runs", f"--root={root}")
    # Not a root that somebody wants elsewhere.
    assume(not {"/", "~", "$"} & set(root) and root != "..")
    ingest(outer, f"--root={root}")


@few
@given(TEXTS)
def test_any_path_of_a_config(outer, path):
    assume(path != "c.yaml")
    assert ingest(outer, config=path) in (1, 2)


@few
@given(
    st.one_of(
        st.binary(max_size=60),
        TEXTS.map(lambda text: text.encode("utf-8", "surrogateescape" if "\ud800" not in text else "surrogatepass")),
    )
)
@example(b"[" * 100_000)
@example(b"a: &a [*a]")
def test_any_content_of_a_config(outer, content):
    Path("any.yaml").write_bytes(content)
    assert ingest(outer, config="any.yaml") in (0, 2)


@few
@given(st.integers(0, len(RECIPE)), st.integers(0, 20), TEXTS)
def test_a_recipe_with_any_text_in_place_of_a_part(outer, begin, length, text):
    changed = RECIPE[:begin] + text + RECIPE[begin + length :]
    Path("any.yaml").write_bytes(changed.encode("utf-8", "replace"))
    ingest(outer, config="any.yaml")
