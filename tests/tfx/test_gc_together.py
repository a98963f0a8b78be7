"""Several `gc` at once, and beside them a run, `runs` and the board: nobody fails, and what may go goes once."""

import json
import re
import shutil
import subprocess
import sys
import threading

import pytest

from lmworks.pipeline.main import main
from lmworks.tfx import board, runs
from lmworks.tfx.artifacts import manifest_of
from lmworks.tfx.metadata import Metadata
from lmworks.tfx.remote import RemoteRoot
from tests.conftest import REPOSITORY
from tests.stores import machine
from tests.tfx import remote_stages, stages

COPIES = 50
GC = """
import sys
from lmworks.pipeline.main import main
import lmworks.tfx.gc
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(["gc", f"--root={sys.argv[1]}", "--yes", "--state"]))
"""


def crowd(root, copies=COPIES):
    """Executions and states that nothing links, some with one key and some with keys of their own."""
    (whole,) = (root / "store" / "write").iterdir()
    for index in range(copies):
        folder = whole.with_name(f"20200101-000000-{index:06x}")
        shutil.copytree(whole, folder)
        manifest = json.loads((folder / "examples" / "artifact.json").read_text())
        manifest["execution"] |= {"id": f"write/{folder.name}", "key": f"{index % (copies // 2):032x}"}
        (folder / "examples" / "artifact.json").write_text(json.dumps(manifest))
        (root / "state" / "write" / f"{index:032x}" / "examples").mkdir(parents=True)
        (root / "state" / "write" / f"{index:032x}" / "examples" / "file").write_text("1")
        (root / "state" / "write" / f"{index:032x}.lock").touch()
        (root / "store" / "write" / f".{index:032x}.20200101-000001-{index:06x}" / "examples").mkdir(parents=True)


def start(root):
    process = subprocess.Popen(
        [sys.executable, "-c", GC, root],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow  # many processes
def test_several_at_once_beside_a_run_runs_and_the_board(tmp_path, capsys):
    stages.run(tmp_path, "one", "first")
    crowd(tmp_path)
    before = {path.name for path in (tmp_path / "store").glob("*/2*")} - {
        f"20200101-000000-{i:06x}" for i in range(COPIES)
    }
    processes = [start(tmp_path) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    words = 0
    while any(process.poll() is None for process in processes):
        words += 1
        stages.run(tmp_path, "two", f"word {words}")
        assert main(["runs", f"--root={tmp_path}"]) == 0
        assert main(["runs", f"--root={tmp_path}", "one"]) == 0
        assert "one" in board.find(tmp_path)
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, said
    assert not any("Traceback" in errors for _, errors in said)
    removed = sum(
        int(re.search(r"^removed (\d+),", out, re.MULTILINE)[1]) for out, _ in said if "nothing to" not in out
    )
    made = words and 3 * (words - 1)  # what `two` made and then made anew may go too, if it was seen in time
    assert 3 * COPIES <= removed <= 3 * COPIES + 2 * made, said
    assert not [line for out, _ in said for line in out.splitlines() if "came into use" in line]
    left = {path.name for path in (tmp_path / "store").glob("*/*")}
    assert before <= left
    assert not [name for name in left if name.startswith(("20200101", "."))]
    assert not [path for path in (tmp_path / "state").glob("*/*") if path.is_dir()]
    for name in ("one", "two"):
        assert runs.read_record(tmp_path / name)["status"] == "done"
        for link in (tmp_path / name).glob("*/*"):
            assert not link.is_symlink() or manifest_of(link)
    metadata = Metadata(tmp_path)
    known = {folder.name for node in stages.nodes("") for folder, _ in metadata.executions(node.component.entry)}
    metadata.close()
    assert known == left
    capsys.readouterr()
    assert main(["gc", f"--root={tmp_path}", "--yes", "--state"]) == 0


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_several_at_once_in_a_store(kind, request, monkeypatch, tmp_path, capfd):
    if kind == "s3":
        url = request.getfixturevalue("s3").url
    else:
        url = f"file://{tmp_path / 'share'}"
        machine(monkeypatch, tmp_path, 1)
    remote_stages.run(url)
    store = RemoteRoot(url).store
    for index in range(20):
        for name in ("examples/artifact.json", "examples/part-000.bin"):
            store.write(f"store/fill/20200101-000000-{index:06x}/{name}", b"x")
    codes = []

    def clear():
        codes.append(main(["gc", f"--root={url}", "--yes"]))

    threads = [threading.Thread(target=clear) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert set(RemoteRoot(url).records()[0]) == {"one"}
    for thread in threads:
        thread.join()
    assert codes == [0] * 3
    assert "once more in" not in capfd.readouterr().err
    assert not [name for name in RemoteRoot(url).store.sizes("store") if "20200101" in name]
    assert [result.status for result in remote_stages.run(url).results] == ["cached", "cached"]
