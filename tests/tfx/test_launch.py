"""A component as a container runs it: its state, what it answers to KFP, and keys set per run."""

import errno
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmworks.tfx import launch, locks
from lmworks.tfx.artifacts import Evaluation, Examples, Logs, Model
from lmworks.tfx.component import Input, Output, component
from tests.tfx.stages import Word


@component
def study(config: Word, examples: Input[Examples] | None, model: Output[Model], logs: Output[Logs]) -> None:
    """Counts in its state how often it was tried, and keeps that for more where the word is `keep`."""
    tries = model.state / "tries"
    count = int(tries.read_text()) + 1 if tries.exists() else 1
    model.state.mkdir(parents=True, exist_ok=True)
    tries.write_text(str(count))
    logs.state.mkdir(parents=True, exist_ok=True)
    (logs.state / "events").write_text("live")
    if count < 2:
        raise OSError("the machine went away")
    model.properties |= {"tries": count, "settled": model.settled, "word": config.word}


@component
def judge(config: Word, evaluation: Output[Evaluation]) -> bool:
    """Says yes, and shows what breaks KFP's file."""
    (evaluation.path / "report.html").write_text("<p>page</p>")
    evaluation.properties |= {"summary": "good", "nothing": None}
    evaluation.shown = {"metrics": {"accuracy": 0.5, "loss": math.inf, "name": None, "curve": [1.0, math.nan]}}
    return True


def arguments(of, folder: Path, **parameters: str) -> list[str]:
    """The command line that KFP gives."""
    outputs = [*of.outputs, *of.views]
    asked = {
        "artifacts": {
            name: {"artifacts": [{"name": f"stores/artifacts/{name}", "uri": f"{folder}/{name}"}]} for name in outputs
        },
        "parameters": {"value": {"outputFile": f"{folder}/value"}} if of.value else {},
        "outputFile": f"{folder}/executor_output.json",
    }
    config = {"config": json.dumps({"word": "a"})}
    given = {"inputs": {"parameterValues": config | parameters}, "outputs": asked}
    return [f"--component={of.entry}", "--executor_input", json.dumps(given)]


def answered(folder: Path) -> dict:
    return json.loads((folder / "executor_output.json").read_text(), parse_constant=pytest.fail)


def made(folder: Path) -> dict:
    return json.loads((folder / "model" / "artifact.json").read_text())["properties"]


def test_a_retry_goes_on_from_the_state(tmp_path):
    command = [*arguments(study, tmp_path / "out"), f"--state={tmp_path / 'state'}"]
    assert [launch.main(command), launch.main(command)] == [1, 0]
    assert made(tmp_path / "out") == {"tries": 2, "settled": False, "word": "a"}
    # A later run of the same config is told that the one before came to its end; another config has a state of its own.
    assert launch.main(command) == 0
    assert made(tmp_path / "out") == {"tries": 3, "settled": True, "word": "a"}
    assert launch.main([*arguments(study, tmp_path / "other", word="b"), f"--state={tmp_path / 'state'}"]) == 1
    assert len([path for path in (tmp_path / "state" / "study").iterdir() if path.is_dir()]) == 2


def test_without_a_state_nothing_is_left_behind(tmp_path):
    assert launch.main(arguments(study, tmp_path / "out")) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model", "logs"}


def test_state_and_live_events_by_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LMWORKS_LOG_DIR", str(tmp_path / "live"))
    assert launch.main(arguments(study, tmp_path / "out")) == 1
    (state,) = (path for path in (tmp_path / "state" / "study").iterdir() if path.is_dir())
    assert (state / "model" / "tries").exists()
    assert not (state / "logs").exists()
    (events,) = (tmp_path / "live").glob("study-*/events")
    assert events.parent.name == f"study-{state.name[:8]}"


def test_what_pages_show_has_no_null_and_no_nan(tmp_path):
    assert launch.main(arguments(judge, tmp_path)) == 0
    told = answered(tmp_path)
    assert told["parameterValues"] == {"value": True}
    assert (tmp_path / "value").read_text() == "true"
    answers = {name: entry["artifacts"][0] for name, entry in told["artifacts"].items()}
    assert all(one["name"] == f"stores/artifacts/{name}" for name, one in answers.items())
    assert {name: one["metadata"] for name, one in answers.items()} == {
        "evaluation": {"summary": "good"},
        "evaluation_metrics": {"accuracy": 0.5},
        "evaluation_classes": {},
        "evaluation_report": {},
    }
    assert (tmp_path / "evaluation_report").read_text() == "<p>page</p>"


def test_a_key_set_for_this_run_is_read_as_yaml_and_validated(tmp_path, capfd):
    state = f"--state={tmp_path / 'state'}"
    assert launch.main([*arguments(study, tmp_path, word="'on: a word'"), state]) == 1
    assert launch.main([*arguments(study, tmp_path, word="'on: a word'"), state]) == 0
    assert made(tmp_path)["word"] == "on: a word"
    capfd.readouterr()
    assert launch.main(arguments(study, tmp_path, word="[1]")) == 1
    assert "word: [1]: should be a valid string" in capfd.readouterr().err


def test_two_that_share_a_state_work_one_after_the_other(tmp_path):
    """The lock is held by this process while another one asks for it."""
    command = [*arguments(study, tmp_path / "out"), f"--state={tmp_path / 'state'}"]
    assert launch.main(command) == 1
    (lock,) = (tmp_path / "state" / "study").glob("*.lock")
    handle = locks.acquire(lock)
    other = subprocess.Popen([sys.executable, "-m", "lmworks.tfx.launch", *command], stderr=subprocess.PIPE, text=True)
    assert "another process works on" in other.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(timeout=0.3)
    os.close(handle)
    assert other.wait(timeout=60) == 0
    assert made(tmp_path / "out")["tries"] == 2


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, capfd):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "acquire", refuse)
    command = [*arguments(study, tmp_path / "out"), f"--state={tmp_path / 'state'}"]
    assert [launch.main(command), launch.main(command)] == [1, 0]
    assert "cannot be locked (No locks available)" in capfd.readouterr().err


def test_a_secret_that_is_not_set_is_one_line_and_nothing_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(launch.SECRETS_ENVIRONMENT, '{"HF_TOKEN": "hub/token", "PATH": "a/b", "WANDB_API_KEY": "w/key"}')
    assert launch.main(arguments(judge, tmp_path)) == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"{judge.entry}: secret not set: HF_TOKEN (key token of hub), WANDB_API_KEY (key key of w); kubectl create secret generic hub "
        "--from-literal=token=… in the run's namespace"
    )
    assert not (tmp_path / "evaluation").exists()
    monkeypatch.setenv("HF_TOKEN", "1")
    monkeypatch.setenv("WANDB_API_KEY", "2")
    assert launch.main(arguments(judge, tmp_path)) == 0
    assert capfd.readouterr().out.splitlines()[-1] == "judge made good"  # what a cluster's log ends with


def copy_to_a_full_disk(folder):
    import shutil

    (folder / "a").mkdir()
    (folder / "a" / "x").write_text("x")
    (folder / "b").mkdir()
    (folder / "b" / "x").symlink_to("/dev/full")
    shutil.copytree(folder / "a", folder / "b", dirs_exist_ok=True, copy_function=shutil.copyfile)


def write_text(_):
    with open("/dev/full", "w") as file:
        file.write("x")


def write_arrow(_):
    import pyarrow as pa

    with pa.OSFile("/dev/full", "wb") as file:
        file.write(b"x" * 10)


def write_parquet(_):
    import pyarrow as pa
    import pyarrow.parquet

    with pa.OSFile("/dev/full", "wb") as file:  # not by name: what it cannot write it would remove
        pyarrow.parquet.write_table(pa.table({"a": [1]}), file)


def fill_a_database(_):
    import sqlite3

    with sqlite3.connect(":memory:") as database:
        database.execute("pragma max_page_count = 3")
        database.execute("create table a (b text)")
        database.executemany("insert into a values (?)", [("x" * 900,)] * 99)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no full disk")
@pytest.mark.parametrize("write", [write_text, copy_to_a_full_disk, write_arrow, write_parquet, fill_a_database])
def test_a_full_disk_is_called_that_whoever_noticed_it(write, tmp_path):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each library has its own
        write(tmp_path)
    said = launch.explain(raised.value)
    assert said.startswith("the disk is full")
    assert said.endswith("free some space and run the same command again")
    assert len(said.splitlines()) == 1


def test_a_failure_reaches_the_runner_where_the_log_takes_nothing(tmp_path):
    """As on a full disk; the log's own error is not what the runner hears."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "lmworks.tfx.launch", *arguments(study, tmp_path)]
    with open("/dev/full", "w") as full:
        environment = {**os.environ, "LMWORKS_PROGRESS_FD": str(write_end)}
        child = subprocess.run(command, stdout=full, stderr=full, pass_fds=[write_end], env=environment, check=False)
    os.close(write_end)
    with os.fdopen(read_end) as events:
        said = json.loads(events.readlines()[-1])["error"]
    assert re.fullmatch(r"OSError: the machine went away \(tests/tfx/test_launch.py:\d+\)", said)
    assert child.returncode == 1
