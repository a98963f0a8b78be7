"""Checkpoints of a training run: written whole or not at all, in the background; the newest whole one is read.

    checkpoints/step-00000500/state.safetensors   what the engine needs to go on
    checkpoints/step-00000500/checkpoint.json     step, config, sums and digests of the files; written last
    checkpoints/best-00000400.safetensors         weights of the best evaluation so far, shared by checkpoints

A folder without a whole `checkpoint.json` is none: it was being written when the process ended.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.tfx.artifacts import file_sha256, sync, write_json

Arrays = dict[str, np.ndarray]
_VERSION = 3
_FILE, _RECORD = "state.safetensors", "checkpoint.json"


class Checkpoint(NamedTuple):
    """All that a run needs to go on."""

    step: int
    """Optimizer steps done."""
    state: Arrays
    """Of the engine."""
    best: Arrays
    """Weights of the best evaluation, empty before the first one."""
    facts: dict[str, Any]
    """Of the loop, JSON values."""


class Checkpoints:
    """Those of one run, in one folder.

    Args:
        folder: is made when the first one is written.
        config: of the run; a checkpoint of another one is refused, but for keys that may change.
        data: digest of the sequences.
        precision: of the computation; where the config says `auto`, another machine may have another one.
    """

    def __init__(self, folder: Path, config: TrainStage, data: str, precision: str) -> None:
        self._folder, self._keep = folder, config.keep_checkpoints
        self._identity: dict[str, Any] = {
            "config": config.resume_identity() | {"precision": precision},
            "data": data,
        }
        self._writing: threading.Thread | None = None
        self._failed: BaseException | None = None

    def newest(self, published: bool, steps: int) -> Checkpoint | None:
        """The newest whole checkpoint; torn ones are skipped with a warning.

        Args:
            published: whether the run that wrote them came to its end, with its last step or before: then only one that is
                asked for more steps goes on from it.
            steps: of the run that is to be done.

        Raises:
            UserError: it belongs to a run with another config, naming the keys, or has more steps than are asked for.
        """
        torn = []
        for path in sorted(self._folder.glob("step-*"), reverse=True):
            try:
                record = self._read(path)
            except (OSError, ValueError, KeyError) as error:
                print(f"train: {path}: is no whole checkpoint and is skipped: {error}", file=sys.stderr)
                torn.append(path)
                continue
            if published and record["facts"]["steps"] >= steps:
                break
            self._refuse_other(path, record["identity"])
            if record["step"] > steps:
                raise UserError(
                    f"train.steps: {path} has {record['step']:,} steps done, and {steps:,} are asked for; ask for at least as "
                    "many, or remove the folder to start anew"
                )
            from safetensors.numpy import load_file

            for other in (*torn, *self._folder.glob(".*")):  # drafts of a process that was killed
                _remove(other)
            self.prune(self._keep)
            best = load_file(self._folder / record["best"]) if record["best"] else {}
            return Checkpoint(record["step"], load_file(path / _FILE), best, record["facts"])
        # What is left is torn, or belongs to a run that came to its end.
        shutil.rmtree(self._folder, ignore_errors=True)
        return None

    def _read(self, path: Path) -> dict[str, Any]:
        record = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        if record["version"] != _VERSION:
            raise ValueError(f"its format is {record['version']}, and this is {_VERSION}")
        for name, digest in record["files"].items():
            if file_sha256(self._folder / name) != digest:
                raise ValueError(f"{name} is torn")
        return record

    def _refuse_other(self, path: Path, theirs: dict[str, Any]) -> None:
        ours = self._identity
        if theirs["data"] != ours["data"]:
            raise UserError(f"{path}: was trained on other sequences; remove the folder to start anew")
        before, now = theirs["config"], ours["config"]
        changed = [f"train.{key}: was {before.get(key)!r} and is {now.get(key)!r}" for key in sorted(before | now)
                   if before.get(key) != now.get(key)]  # fmt: skip
        if changed:
            raise UserError(
                f"{path}: cannot go on with another config ({'; '.join(changed)}); set it back, or remove the folder to start anew"
            )

    def write(self, checkpoint: Checkpoint, best_step: int) -> None:
        """Writes one in the background; waits for the one before it.

        Args:
            checkpoint: its arrays are the writer's from now on.
            best_step: at which `checkpoint.best` was found.
        """
        self.wait()
        self._writing = threading.Thread(target=self._work, args=(checkpoint, best_step), name="checkpoint")
        self._writing.start()

    def wait(self) -> None:
        """Until the last one is written.

        Raises:
            OSError: it could not be, for example because the disk is full.
        """
        if self._writing:
            self._writing.join()
            self._writing = None
        if self._failed:
            failed, self._failed = self._failed, None
            raise failed

    def _work(self, checkpoint: Checkpoint, best_step: int) -> None:
        try:
            self._write(checkpoint, best_step)
        except BaseException as error:  # raised in the training thread by `wait`
            torn = [path for path in self._folder.glob("step-*") if not (path / _RECORD).exists()]
            for path in (*torn, *self._folder.glob(".*")):  # what cannot be used takes no room
                _remove(path)
            self._failed = error

    def _write(self, checkpoint: Checkpoint, best_step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        best = f"best-{best_step:08d}.safetensors" if checkpoint.best else ""
        if best and not (self._folder / best).exists():
            draft = self._folder / f".{best}"
            _save(checkpoint.best, draft)
            draft.rename(self._folder / best)
        # In place, with the record last: on a mounted bucket a folder with files in it cannot be renamed.
        name = f"step-{checkpoint.step:08d}"
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _save(checkpoint.state, folder / _FILE)
        files = {f"{name}/{_FILE}": file_sha256(folder / _FILE)}
        if best:
            files[best] = file_sha256(self._folder / best)
        record = {"version": _VERSION, "step": checkpoint.step, "identity": self._identity}
        write_json(folder / _RECORD, record | {"files": files, "best": best, "facts": checkpoint.facts})
        self.prune(self._keep)

    def prune(self, keep: int) -> None:
        """Removes all but the newest ones, what was left half written, and weights that none of them names."""
        found = sorted(self._folder.glob("step-*"))
        kept = [path for path in found if (path / _RECORD).exists()][-keep:]
        for path in set(found) - set(kept):
            shutil.rmtree(path)
        named = set()
        for path in kept:
            try:
                named.add(json.loads((path / _RECORD).read_text())["best"])
            except (OSError, ValueError, KeyError):  # a torn one names nothing
                continue
        for path in self._folder.glob("best-*"):
            if path.name not in named:
                path.unlink()


def _save(arrays: Arrays, path: Path) -> None:
    """Writes arrays durably.

    Raises:
        OSError: they could not be; safetensors itself raises an error of its own.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path)
    except SafetensorError as error:
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), str(error), str(path)) from error
        raise
    sync(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
