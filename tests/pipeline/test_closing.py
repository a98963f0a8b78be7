"""What a person reads at the end of `lmworks run`."""

import re
import sys

import pytest
from absl import flags

from lmworks.configs.errors import ConfigError, UserError
from lmworks.pipeline.closing import closing, go_on
from lmworks.pipeline.main import main
from lmworks.tfx.artifacts import Evaluation, Servable, publish
from lmworks.tfx.local import Result
from lmworks.tfx.process import Stopped
from tests.conftest import lmworks


def result(root, stage, output, kind, status="made", **properties):
    """An execution with one artifact, linked from the run `r`."""
    folder = root / "store" / stage / "x"
    (folder / output).mkdir(parents=True)
    (folder / output / "report.html").write_text("<p>")
    artifact = kind(folder / output, properties)
    publish(artifact, output, {"id": f"{stage}/x"})
    (root / "r" / stage).mkdir(parents=True)
    (root / "r" / stage / output).symlink_to(folder / output)
    (root / "r" / stage / "log.txt").touch()
    return Result(stage, status, "first time", 1.0, folder)


@pytest.fixture(autouse=True)
def _as_lmworks(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lmworks"])
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/bin/{name}")


def test_the_whole_run_says_where_its_results_are(tiny):
    lines = tiny.stderr.splitlines()[-6:]
    assert lines == [
        f"  report    {tiny.folder}/evaluate/evaluation/report.html",
        f"  servable  {tiny.folder}/export/servable",
        f"  logs      {tiny.folder}/*/log.txt",
        f"  next      lmworks predict --servable={tiny.folder}/export/servable --text='…'",
        f"            lmworks runs tiny --root={tiny.root}",
        f"            lmworks board --root={tiny.root}",
    ]
    assert "\x1b" not in tiny.stderr
    assert tiny.stdout == f"{tiny.folder}\n"  # scripts read it
    assert re.search(r"train +made +[\d.]+ s  38.6k parameters, 180 steps", tiny.stderr)


def test_a_model_that_is_refused_is_told_with_the_reason_and_the_report(tmp_path):
    line = "accuracy 0.5000 [–], NOT blessed: accuracy 0.5 is below the minimum 0.9"
    evaluated = result(tmp_path, "evaluate", "evaluation", Evaluation, summary=line)
    lines = closing(str(tmp_path), "r", [evaluated, Result("export", "skipped", "evaluate said no", 0.0, None)])
    assert lines[:3] == [
        "  refused   accuracy 0.5 is below the minimum 0.9",
        f"  report    {tmp_path}/r/evaluate/evaluation/report.html",
        f"  logs      {tmp_path}/r/*/log.txt",
    ]
    assert not [text for text in lines if "predict" in text or "servable" in text]


@pytest.mark.parametrize(
    ("properties", "options"),
    [
        ({"task": "masked_lm"}, "--text='… [MASK] …'"),
        ({"task": "text_classification", "text_pair": True}, "--text='…' --text_b='…'"),
        ({"task": "causal_lm"}, "--text='…'"),
    ],
)
def test_the_next_command_suits_the_model(tmp_path, monkeypatch, properties, options):
    servable = result(tmp_path / "runs", "export", "servable", Servable, **properties)
    monkeypatch.chdir(tmp_path)
    lines = closing("runs", "r", [servable])
    assert f"  next      lmworks predict --servable=runs/r/export/servable {options}" in lines
    assert "            lmworks runs r" in lines


def test_at_a_url_results_are_named_by_their_urls(tmp_path):
    servable = result(tmp_path, "export", "servable", Servable)
    lines = closing("s3://bucket/runs", "r", [servable])
    assert lines == [
        "  servable  s3://bucket/runs/store/export/x/servable",
        "  next      lmworks runs r --root=s3://bucket/runs",
        "            lmworks board --root=s3://bucket/runs",
    ]


def test_a_run_that_failed_is_not_said_to_go_on(tmp_path):
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={tmp_path}", f"--set=ingest.train={tmp_path}/a b.csv")
    *_, failed, error = done.stderr.splitlines()
    assert re.fullmatch(r"ingest +fail +[\d.]+ s", failed)
    assert error.startswith("lmworks run: ingest.train: ")
    assert error.endswith(f"(log: {tmp_path}/tiny/ingest/log.txt)")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("end", "lines"),
    [
        (KeyboardInterrupt(), ["  go on     lmworks run --config=configs/tiny.yaml", "lmworks run: interrupted; "]),
        (Stopped("stopped"), ["  go on     lmworks run --config=configs/tiny.yaml", "lmworks run: stopped"]),
        (UserError("broken"), ["lmworks run: broken"]),
        (ConfigError("wrong"), ["lmworks run: wrong"]),
    ],
)
def test_only_a_run_that_was_stopped_is_said_to_go_on(end, lines, monkeypatch, capfd):
    def stop(*_):
        raise end

    monkeypatch.setattr("lmworks.pipeline.main._execute", stop)
    main(["run", "--config=configs/tiny.yaml"])
    said = capfd.readouterr().err.splitlines()
    assert [line[: len(expected)] for line, expected in zip(said, lines, strict=True)] == lines


def test_flags_are_written_as_they_were_typed():
    values = flags.FlagValues()
    flags.DEFINE_string("root", "runs", "", flag_values=values)
    flags.DEFINE_multi_string("set", [], "", flag_values=values)
    flags.DEFINE_boolean("in_process", False, "", flag_values=values)
    flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
    values(["run", "--set=a=1", "--in_process", "--set=b=x y"])
    assert go_on(values) == "  go on     lmworks run --set=a=1 '--set=b=x y' --in_process"
    values(["run", "--set=ingest.train=https://h/a?sig=S 3", "--root=a\x1b"])
    line = go_on(values)
    assert line.startswith("  go on     lmworks run '--root=a\\x1b' ")
    assert line.endswith("'--set=ingest.train=https://h/a?…' --in_process  (with what … hides set again)")
