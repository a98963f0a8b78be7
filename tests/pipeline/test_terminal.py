"""What files and servers say reaches the terminal without control characters, and bounded."""

import json

import pytest

from lmworks.configs.shown import LIMIT
from lmworks.pipeline import preview
from lmworks.pipeline.main import main
from lmworks.tfx import cluster, gc, launch
from lmworks.tfx.screen import Screen

NASTY = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\r\n\ud800\u2028"
"""Sets a terminal's title, clears it, colours it, reverses text, overwrites a line, and cannot be encoded."""


def unsafe(text: str) -> set[str]:
    return set(text) & (set(NASTY) - set("]0;title[2J31mevil\n"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run that failed, whose record says nasty things, and one whose folder has a nasty name."""
    root = tmp_path_factory.mktemp("nasty")
    (root / "metadata.lock").touch()
    (root / "bad").mkdir()
    stage = {"status": "made", "why": NASTY, "seconds": 1.0, "summary": NASTY, "execution": None}
    record = {
        "run": "bad",
        "status": "failed",
        "stages": {"evaluate": stage},
        "error": NASTY + "x" * 700_000 + "the end",
    }
    (root / "bad" / "run.json").write_text(json.dumps(record))
    name = NASTY.replace("\ud800", "\udcff")
    (root / name).mkdir()
    (root / name / "run.json").write_text(json.dumps(record | {"status": NASTY}))
    (root / "store" / "learn" / f"20200101-000000-{name}").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    "command", [["runs"], ["runs", "bad"], ["runs", "bad", "--follow"], ["runs", "none"], ["gc"], ["runs", NASTY[:-2]]]
)
def test_records_and_names_of_files_are_safe(root, command, capsys):
    main([command[0], f"--root={root}", *command[1:]])
    said = capsys.readouterr()
    assert not unsafe(said.out + said.err)
    assert len(said.out + said.err) < 4 * LIMIT
    if command[1:] == ["bad"]:
        assert said.out.endswith("xxxthe end\n")


def test_errors_are_safe_and_bounded(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\ntrain: {epochs: '" + "9" * 700_000 + "'}\n")
    assert main(["run", f"--config={recipe}", "--root=" + str(tmp_path / "runs")]) == 2
    assert main(["run", "--config=" + "x" * 700_000]) == 2
    assert main(["run", "--config=\x1b[2J"]) == 2
    assert main(["run", "--config=a", "--no\x1b[2J=1"]) == 2
    said = capsys.readouterr().err
    assert not unsafe(said)
    assert len(said) < 3 * LIMIT
    assert "characters more) …" in said


def test_a_stage_tells_its_error_safe_and_bounded():
    from lmworks.configs.errors import UserError

    for error in (UserError(NASTY + "x" * 700_000), ValueError(NASTY * 10_000)):
        told = launch.explain(error)
        assert not unsafe(told)
        assert len(told) <= LIMIT + 100


def test_lines_of_a_cluster_are_safe(capsys, monkeypatch):
    class Run:
        link = "https://cluster/run"

        def status(self):
            return cluster.Status("failed", {"train": cluster.Stage("failed", 1.0, NASTY)}, NASTY)

        def log(self, stage):
            return [NASTY, "train: " + NASTY]

    for verbose in (True, False):
        with pytest.raises(cluster.UserError):
            cluster.follow(Run(), ["train"], Screen(), verbose)
        assert r"train       | \x1b]0;title" in (said := capsys.readouterr().err)
        assert not unsafe(said)


def test_gc_lists_safe_lines(tmp_path):
    item = gc.Item("execution", NASTY, tmp_path / NASTY, 1)
    assert not unsafe(gc.describe([item]))
    assert len(gc.describe([item]).splitlines()) == 3


def test_previewed_texts_are_safe():
    assert str(preview._token("a\n\t\x1b[2J", "dim")) == "a⏎\n→\t\\x1b[2J"
    assert not unsafe(str(preview._heading(f"label {NASTY}")))
