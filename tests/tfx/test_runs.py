"""A run as other processes see it: while it runs, when it failed, and when it was killed."""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from lmworks.pipeline.main import main
from lmworks.tfx import locks, run_views, runs
from lmworks.tfx.colours import Paint
from lmworks.tfx.local import StageError
from tests.conftest import REPOSITORY, lmworks
from tests.tfx import stages


def follow(root, name="one"):
    command = [sys.executable, "-m", "lmworks.pipeline.main", "runs", f"--root={root}", name, "--follow"]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_live_work_is_seen_while_it_runs_and_gone_afterwards(tmp_path, start):
    process = start()
    folder = tmp_path / "one"
    live = folder / "learn" / "live"
    assert not live.readlink().is_absolute()
    assert live.resolve().parent == tmp_path / "state" / "learn"
    assert list(live.glob("logs/*.tfevents.*"))
    record = runs.read_record(folder)
    assert (record["status"], record["running"]["stage"]) == ("running", "learn")
    assert 0 <= time.time() - record["running"]["since"] < 60
    assert record["process"]["pid"] == process.pid
    at, told = runs.now(folder, record)
    assert at == "learn"
    assert re.fullmatch(r"\d+:\d\d  1/2 steps \(50 %\)  loss nan", told)
    told = json.loads((folder / runs.PROGRESS).read_text(), parse_constant=pytest.fail)
    assert (told["done"], told["total"], told["unit"]) == (1, 2, "steps")
    shown = lmworks("runs", f"--root={tmp_path}", "one").stdout
    assert re.search(r"learn       running \d+:\d\d  1/2 steps", shown)
    assert f"{live}  (not finished)" in shown
    assert re.search(
        r"one +running +[-0-9]+ [:0-9]+ +[:0-9]+ +learn \d+:\d\d  1/2 steps",
        lmworks("runs", f"--root={tmp_path}").stdout,
    )
    (tmp_path / "release").touch()
    assert process.wait(120) == 0
    assert runs.read_record(folder)["status"] == "done"
    assert "running" not in runs.read_record(folder)
    assert not live.is_symlink()
    assert not (folder / runs.PROGRESS).exists()
    assert [path.name for path in (folder / "learn").iterdir() if path.is_symlink()] == ["logs"]


def test_follow_tells_stages_as_they_end_and_ends_with_the_run(tmp_path, start):
    process = start()
    follower = follow(tmp_path)
    lines = [follower.stdout.readline(), follower.stdout.readline()]
    assert lines[0].startswith("write       made")
    assert re.match(r"learn       … \d+:\d\d  1/2 steps \(50 %\)", lines[1])  # no terminal: a line every few seconds
    assert follower.poll() is None
    (tmp_path / "release").touch()
    out, errors = follower.communicate(timeout=120)
    assert process.wait(120) == follower.returncode == 0
    ended = [line.split()[:2] for line in out.splitlines() if "…" not in line]
    assert ended == [["learn", "made"], ["tell", "made"]]
    assert errors == ""


def test_follow_leaves_quietly_and_a_stopped_run_is_called_so(tmp_path, start, capsys):
    process = start()
    follower = follow(tmp_path)
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, errors = follower.communicate(timeout=120)
    assert (follower.returncode, errors) == (130, "")
    assert runs.read_record(tmp_path / "one")["status"] == "running"
    process.send_signal(signal.SIGINT)
    assert process.wait(120) != 0
    record = runs.read_record(tmp_path / "one")
    assert record["status"] == "stopped"
    assert record["began"] < record["ended"] < time.time()
    assert "one: stopped" in run_views.show(tmp_path / "one")
    assert main(["runs", f"--root={tmp_path}", "one", "--follow"]) == 130
    assert "the same command goes on from" in capsys.readouterr().err
    assert "stopped" in run_views.table(runs.readable(tmp_path))[1]
    (tmp_path / "release").touch()
    stages.run(tmp_path, "one", "yes", tmp_path / "release")
    assert "learn       made" in (lines := capsys.readouterr().err)
    assert "[an earlier run did not finish it]" in lines


def test_a_killed_run_is_said_to_be_dead_and_its_curve_stays(tmp_path, start):
    process = start()
    follower = follow(tmp_path)
    follower.stdout.readline()
    process.kill()
    _, errors = follower.communicate(timeout=120)
    assert follower.returncode == 1
    assert f"its process {process.pid} died at learn" in errors
    assert listed_status(tmp_path) == "died"
    assert list((tmp_path / "one/learn/live/logs").glob("*.tfevents.*"))
    (tmp_path / "release").touch()
    stages.run(tmp_path, "one", "yes", tmp_path / "release")
    assert listed_status(tmp_path) == "done"
    assert not (tmp_path / "one/learn/live").is_symlink()


def listed_status(root):
    header, line = lmworks("runs", f"--root={root}").stdout.splitlines()
    assert header.split() == ["RUN", "STATUS", "STARTED", "TOOK", "RESULT"]
    return line.split()[1]


def test_a_failed_run_says_why_and_its_curve_stays_until_it_starts_again(tmp_path):
    with pytest.raises(StageError, match="the word is bad"):
        stages.run(tmp_path, "one", "bad")
    done = lmworks("runs", f"--root={tmp_path}", "one", "--follow")
    assert done.returncode == 1
    assert done.stderr == "learn: the word is bad; take another\n"
    lines = run_views.show(tmp_path / "one").splitlines()
    assert lines[-3:] == [
        "  learn",
        f"    {tmp_path}/one/learn/live  (not finished)",
        "  learn: the word is bad; take another",
    ]
    live = tmp_path / "one/learn/live"
    assert list(live.glob("logs/*.tfevents.*"))
    assert runs.read_record(tmp_path / "one").get("running") is None
    stages.run(tmp_path, "one", "good")
    assert not live.is_symlink()


def test_a_run_is_shown_in_the_order_of_its_stages_in_the_words_of_the_screen(tmp_path, capsys):
    stages.run(tmp_path, "one", "no")
    stages.run(tmp_path, "two", "no")
    folder = tmp_path / "two"
    marks = [line.split()[:2] for line in run_views.show(folder).splitlines() if re.match(r"  \w", line)]
    assert marks == [["write", "hit"], ["learn", "hit"], ["tell", "skip"]]
    assert main(["runs", f"--root={tmp_path}", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["run"], second["run"]) == ("one", "two")
    assert first["changed"] == {"write": "first time", "learn": "first time"}
    assert second["changed"] == {}
    assert [stage["status"] for stage in second["stages"]] == ["hit", "hit", "skip"]
    assert second["stages"][1]["outputs"] == [str(folder / "learn" / "logs")]
    assert second["seconds"] >= 0
    assert abs(datetime.datetime.fromisoformat(second["started"]).timestamp() - time.time()) < 60
    assert main(["runs", f"--root={tmp_path}", "two", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == second
    assert main(["runs", f"--root={tmp_path}", "two", "--json", "--follow"]) == 2


def test_a_run_that_was_refused_is_called_so_and_shown_in_colours(tmp_path, monkeypatch, capsys):
    stages.run(tmp_path, "one", "no")
    record = json.loads((tmp_path / "one" / runs.RECORD).read_text())
    record["stages"]["learn"]["summary"] = "words " * 20
    (tmp_path / "one" / runs.RECORD).write_text(json.dumps(record))
    assert record["status"] == "done"
    assert main(["runs", f"--root={tmp_path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["status"] == "refused"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    paint = Paint(sys.stdout)
    assert "one  \x1b[33mrefused\x1b[0m  " in run_views.table(runs.readable(tmp_path), 80, paint)[1]
    lines = run_views.show(tmp_path / "one", width=79, paint=paint).splitlines()
    assert lines[0].startswith("one: \x1b[33mrefused\x1b[0m  ")
    assert lines[-1] == "  tell        \x1b[33mskip\x1b[0m      0.0 s  [learn said no]"
    assert any(line.startswith(31 * " " + "words") for line in lines)


def test_numbers_and_times_for_scripts(tmp_path):
    stages.run(tmp_path, "one", "yes")
    manifest = tmp_path / "one/learn/logs/artifact.json"
    properties = {"metrics": {"accuracy": 0.5}, "steps": 2, "good": True}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"properties": properties}))
    record = runs.read_record(tmp_path / "one")
    learn = run_views.as_json(tmp_path / "one", record)["stages"][1]
    assert learn["figures"] == {"logs/metrics/accuracy": 0.5, "logs/steps": 2}
    record |= {"status": "running", "running": {"stage": "tell", "since": 0}}
    assert run_views.as_json(tmp_path / "one", record)["running"]["since"] == "1970-01-01T00:00:00+00:00"


def test_a_list_is_cut_to_the_width_of_a_terminal(tmp_path):
    stages.run(tmp_path, "one", "yes")
    record = runs.read_record(tmp_path / "one") | {"status": "failed", "error": "a long story " * 20}
    runs.write_record(tmp_path / "one", record)
    assert max(map(len, run_views.table(runs.readable(tmp_path), 80))) == 80
    assert run_views.table(runs.readable(tmp_path))[1].endswith("story")


def test_follow_of_a_run_that_said_no_is_exit_code_3(tmp_path):
    stages.run(tmp_path, "one", "no")
    done = lmworks("runs", f"--root={tmp_path}", "one", "--follow")
    assert done.returncode == 3
    assert "tell        skip" in done.stdout


def test_follow_needs_a_name_that_is_known(tmp_path):
    assert (
        f"lmworks run --config=configs/tiny.yaml --root={tmp_path} makes one"
        in lmworks("runs", f"--root={tmp_path}").stderr
    )
    assert "--follow needs a run's name" in lmworks("runs", f"--root={tmp_path}", "--follow").stderr
    assert lmworks("runs", f"--root={tmp_path}", "none", "--follow").returncode == 2


def test_of_another_machine_nothing_is_said_that_is_not_known(tmp_path):
    stages.run(tmp_path, "one", "yes")
    record = json.loads((tmp_path / "one" / runs.RECORD).read_text())
    record |= {"status": "running"}
    (tmp_path / "one" / runs.RECORD).write_text(json.dumps(record))
    assert runs.read_record(tmp_path / "one")["status"] == "died"
    record["process"]["host"] = "elsewhere"
    (tmp_path / "one" / runs.RECORD).write_text(json.dumps(record))
    assert runs.read_record(tmp_path / "one")["status"] == "running"


def test_a_lock_file_that_is_removed_while_one_waits_locks_nobody_out_or_in(tmp_path):
    path = tmp_path / "key.lock"
    code = "import pathlib, sys; from lmworks.tfx.locks import acquire; "
    code += "acquire(pathlib.Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"
    first = locks.acquire(path)
    assert locks.held(path)
    assert locks.acquire(path, wait=False) is None
    second = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    time.sleep(1)
    path.unlink()
    os.close(first)
    assert second.stdout.readline() == "1\n"
    assert locks.held(path)  # the waiting one holds the file that is there now, not the removed one
    second.communicate()
    assert not locks.held(path)


def test_what_fails_before_a_process_has_its_work_is_told(tmp_path):
    command = [sys.executable, "-m", "tests.tfx.stages", tmp_path, "one", "unknown"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "write: the word is unknown; take another (log: " in done.stderr
