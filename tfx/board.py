"""TensorBoard over the live and the finished runs of a root, under the runs' names.

TensorBoard would find every curve twice in a root, in the store and through a run's links, and name it by an execution. So it
reads a folder of links that is made for it, one a run, kept up to date while it works. Both of its readers follow symbolic
links (seen with TensorBoard 2.21): the fast one in Rust, which it takes where it is installed (`--load_fast=auto`), and the one in
Python. Both find links that appear later, keep an event file open, and forget a run at the reload that finds its link gone. So a
run whose events are in other files than before (begun anew, purged, or copied to the store) has no link for one round.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.tfx import process, runs
from lmworks.tfx.artifacts import Logs, manifest_of

_RELOAD_SECONDS = 2
"""Between two looks of TensorBoard at the links."""
_REFRESH_SECONDS = 5.0
"""Between two looks of ours at the runs: long enough for TensorBoard to notice each."""


class Events(NamedTuple):
    """TensorBoard's events of a run; another first file is another curve, or the curve's copy."""

    folder: Path
    first: str
    inode: int


def serve(root: Path, host: str, port: int) -> None:
    """Runs TensorBoard until it is interrupted.

    Raises:
        ConfigError: there is nothing to show, or the port is taken.
        UserError: TensorBoard ended by itself.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder; give the root of your runs with --root")
    if not runs.folders(root):
        raise ConfigError(f"{root}: no runs yet; lmworks run --config=configs/tiny.yaml makes one")
    _check_free(host, port)
    with tempfile.TemporaryDirectory(prefix="lmworks-board-") as temporary:
        links = Path(temporary, "runs")
        links.mkdir()
        log = Path(temporary, "log.txt")
        shown: dict[str, Events] = {}
        link(root, links, shown)
        options = [f"--logdir={links}", f"--host={host}", f"--port={port}", f"--reload_interval={_RELOAD_SECONDS}"]
        command = process.python("lmworks.tfx.board", *options, f"--window_title={root}")
        # A polite end from outside takes the same way out as Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with log.open("wb") as chatter:
            child = process.start(command, stdin=subprocess.DEVNULL, stdout=chatter, stderr=chatter)
        try:
            _wait_until_it_answers(child, host, port)
            print(f"TensorBoard over {root}: http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
            while child.poll() is None:
                time.sleep(_REFRESH_SECONDS)
                link(root, links, shown)
        except KeyboardInterrupt:
            return
        finally:
            child.terminate()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["without a word"]
        raise UserError(f"TensorBoard ended with exit code {child.returncode}: {words[-1]}")


def link(root: Path, links: Path, shown: dict[str, Events]) -> None:
    """Makes the links what the runs are now.

    Args:
        root: of the runs.
        links: the folder of links.
        shown: what they show, by name; kept up to date.
    """
    wanted = find(root)
    for name, events in list(shown.items()):
        if wanted.pop(name, None) != events:
            (links / name).unlink()
            del shown[name]
    for name, events in wanted.items():
        (links / name).symlink_to(events.folder, target_is_directory=True)
        shown[name] = events


def find(root: Path) -> dict[str, Events]:
    """The events of every run that has some, by the run's name; with the stage's where a run has several."""
    found = {}
    for run in runs.folders(root):
        stages: dict[str, Events] = {}
        with contextlib.suppress(OSError):  # removed while it was looked at, or not ours to read
            stages = {
                stage.name: events for stage in sorted(run.iterdir()) if (events := _events_of(stage, root.resolve()))
            }
        for stage, events in stages.items():
            found[run.name if len(stages) == 1 else f"{run.name}-{stage}"] = events
    return found


def _events_of(stage: Path, root: Path) -> Events | None:
    """Those of the stage's published logs, or the live ones of a stage that has not finished; a link out of the root shows none."""
    with contextlib.suppress(OSError):  # what is no folder; or the stage went on while it was looked at: next time
        for output in stage.iterdir():
            inside = output.is_symlink() and output.resolve().is_relative_to(root / "store")
            manifest = manifest_of(output) if inside else None
            if manifest and manifest["type"] == Logs.__name__:
                return _events(output)
        for output in (stage / runs.LIVE).iterdir():
            inside = output.resolve().is_relative_to(root / "state")
            if inside and (events := _events(output)):
                return events
    return None


def _events(folder: Path) -> Events | None:
    files = {path.name: path for path in folder.rglob("*.tfevents.*")}
    # By where it really is: the run's own link is taken away when the stage begins again.
    return Events(folder.resolve(), min(files), files[min(files)].stat().st_ino) if files else None


def _check_free(host: str, port: int) -> None:
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host={host}: is no address of this machine ({error.strerror})") from None
    with socket.socket(address[0], socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address[4])
        except OSError as error:
            raise ConfigError(f"{host}:{port} cannot be served ({error.strerror}); give another --port") from None


def _wait_until_it_answers(child: subprocess.Popen[bytes], host: str, port: int) -> None:
    while child.poll() is None:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)


def _tensorboard() -> None:
    """The child: TensorBoard's own command in a process that ends with ours."""
    process.die_with_parent()
    from tensorboard.main import run_main

    run_main()


if __name__ == "__main__":
    _tensorboard()
