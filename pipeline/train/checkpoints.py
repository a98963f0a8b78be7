"""Checkpoints of a training run: written whole or not at all, in the background; the newest whole one is read.

    checkpoints/step-00000500/state.safetensors   what the engine needs to go on
    checkpoints/step-00000500/events.out…         TensorBoard's, as they were at that step
    checkpoints/step-00000500/checkpoint.json     step, config, code, sums and digests of the files; written last
    checkpoints/best-00000400.safetensors         weights of the best evaluation so far, shared by checkpoints
    checkpoints/.torn/step-00000600/              the newest that was torn, for whoever wants to look at it

Torn is a checkpoint whose `checkpoint.json` is missing or is no such record, or that has a file with another digest: it was being
written when the process ended, or the disk has lost some of it. A checkpoint that cannot be read is not torn: that is an error, and
everything stays as it is.

All runs that share a folder have the same learning rate at every step (`TrainStage.resume_identity`), so a checkpoint of one is a
checkpoint of all that have as many steps. A run that begins to write beside the checkpoints of a finished run marks those in their
records (`finished`): the folder as a whole counts as unfinished from then on, they do not.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.configs.shown import shown
from lmworks.tfx import fingerprint, names
from lmworks.tfx.artifacts import file_sha256, has_fields, sync, write_json

Arrays = dict[str, np.ndarray]
_VERSION = 3
_FILE, _RECORD, _TORN, _FINISHED = "state.safetensors", "checkpoint.json", ".torn", "finished"
_LENGTH = ("steps", "epochs", "warmup_ratio", "warm-up steps")
"""Keys of the identity that say how long a run and its warm-up are."""
_BEGAN = time.time()


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
    changed_code: tuple[str, ...] = ()
    """Modules and libraries that were others when it was written."""


class _TornError(Exception):
    """A checkpoint is not whole."""


class Checkpoints:
    """Those of one run, in one folder.

    Args:
        folder: is made when the first one is written.
        config: of the run; a checkpoint of another one is refused, but for keys that may change.
        data: digest of the sequences.
        precision: of the computation; where the config says `auto`, another machine may have another one.
        events: folder of the event files, which `Checkpoint.facts` names with their sizes.
        begin: is called before the first one is written.
    """

    def __init__(
        self, folder: Path, config: TrainStage, data: str, precision: str, events: Path, begin: Callable[[], None]
    ) -> None:
        self._folder, self._keep, self._events, self._begin = folder, config.keep_checkpoints, events, begin
        self._identity: dict[str, Any] = {
            "config": config.resume_identity() | {"precision": precision},
            "data": data,
        }
        self._schedule = config.schedule
        self._made_by = _made_by()
        self._began = self._published = False
        self._superseded: list[Path] = []
        """Left by a finished run of other code, which nothing can go on from exactly."""
        self._bests: dict[int, tuple[str, str]] = {}
        """Name and digest of the best weights of this run, by their step."""
        self._writing: threading.Thread | None = None
        self._failed: BaseException | None = None

    def newest(self, published: bool, steps: int) -> Checkpoint | None:
        """Reads the newest whole checkpoint that a run can go on from; of torn ones the newest is set aside.

        Args:
            published: whether the run that wrote them came to its end and was published: what goes on from it must be what a
                run from the beginning would be, so it needs the same code and libraries.
            steps: of the run that is to be done.

        Raises:
            UserError: they belong to a run with another config, naming the keys; or one cannot be read, and all stay.
        """
        self._published = published
        torn: list[Path] = []
        with self._unreadable():
            found = self._find(steps, torn)
        self._set_aside(torn)
        if found is None:
            return None
        path, checkpoint = found
        self._restore_events(path, checkpoint.facts["events"])
        return checkpoint

    @contextlib.contextmanager
    def _unreadable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{error.filename or self._folder}: cannot be read ({error.strerror or error}); the checkpoints stay as they are, "
                "and the same command goes on from them when they can be"
            ) from error

    def _find(self, steps: int, torn: list[Path]) -> tuple[Path, Checkpoint] | None:
        reason = ""
        for path in reversed(self._paths("step-")):
            try:
                record = _record(path)
                self._refuse_other(path, record["identity"])
                step, changed = record["progress"], _changed(record)
                if step > steps:
                    reason = reason or f"step {step:,} of a checkpoint is beyond train.steps={steps:,}"
                    continue
                if changed and (self._published or record.get(_FINISHED)):
                    self._superseded.append(path)
                    reason = reason or f"the finished run was made by other code ({_named(changed)})"
                    continue
                self._check_files(path, record)
            except _TornError as error:
                print(
                    f"train: {path}: is no whole checkpoint and is skipped: {shown(error)}", file=sys.stderr, flush=True
                )
                torn.append(path)
                continue
            if record["best"]:
                name = record["best"]
                self._bests[record["facts"]["best"]["step"]] = (name, record["files"][name])
            best = _load(self._folder / record["best"]) if record["best"] else {}
            return path, Checkpoint(step, _load(path / _FILE), best, record["facts"], changed)
        if reason:
            print(f"train: starts anew: {shown(reason)}", file=sys.stderr, flush=True)
        return None

    def _restore_events(self, path: Path, sizes: dict[str, int]) -> None:
        """Puts event files back that another run has removed since, or that a power cut has shortened."""
        for name, size in sizes.items():
            live = self._events / name
            if not live.exists() or live.stat().st_size < size:
                self._events.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path / name, live)

    def describe_other_lengths(self, folders: Iterable[Path]) -> str:
        """Says why a run starts anew where one that differs in nothing but its length and warm-up is kept; else empty.

        Args:
            folders: of checkpoints of other runs.
        """
        ours = self._identity["config"]
        for folder in folders:
            paths = []
            with contextlib.suppress(OSError):  # it is theirs, and here is only a message
                paths = sorted(folder.glob("step-*"), reverse=True)
            for path in paths:
                try:
                    theirs = _record(path)["identity"]
                except (OSError, _TornError, UserError):
                    continue
                config = theirs["config"]
                if theirs["data"] != self._identity["data"] or _rest(config) != _rest(ours):
                    continue
                length = "; ".join(_differences(config, ours))
                return (
                    f"with train.schedule={self._schedule} the learning rate of a step depends on the length of the run and "
                    f"of its warm-up, which the kept checkpoints differ in ({length}); they stay"
                )
        return ""

    def _refuse_other(self, path: Path, theirs: dict[str, Any]) -> None:
        ours = self._identity
        if theirs["data"] != ours["data"]:
            raise UserError(f"{path}: was trained on other sequences; remove the folder to start anew")
        if changed := _differences(theirs["config"], ours["config"]):
            raise UserError(
                f"{path}: cannot go on with another config ({'; '.join(changed)}); set it back, or remove the folder to start anew"
            )

    def _check_files(self, path: Path, record: dict[str, Any]) -> None:
        for name, digest in record["files"].items():
            try:
                whole = file_sha256(self._folder / name) == digest
            except FileNotFoundError:
                raise _TornError(f"{name} is missing") from None
            if not whole:
                raise _TornError(f"{name} is torn")

    def _set_aside(self, torn: list[Path]) -> None:
        """Moves the newest torn checkpoint out of the way, removes older ones, and drafts of a process that was killed."""
        for draft in self._paths("."):
            if draft.name != _TORN:
                _remove(draft)
        if not torn:
            return
        aside = self._folder / _TORN
        if aside.exists():
            shutil.rmtree(aside)
        newest, *older = torn
        (aside / newest.name).mkdir(parents=True)
        for file in newest.iterdir():  # one by one: on a mounted bucket a folder with files in it cannot be renamed
            file.rename(aside / newest.name / file.name)
        newest.rmdir()
        for path in older:
            _remove(path)

    def _paths(self, prefix: str) -> list[Path]:
        """Lists what lies in the folder under names that begin so.

        Raises:
            OSError: it cannot be read; `Path.glob` would say that there is nothing.
        """
        try:
            return sorted(path for path in self._folder.iterdir() if path.name.startswith(prefix))
        except FileNotFoundError:
            return []

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
            self._start()
            self._write(checkpoint, best_step)
            self.prune(self._keep, checkpoint.step)
        except BaseException as error:  # raised in the training thread by `wait`
            self._failed = error

    def _start(self) -> None:
        """Makes the folder this run's."""
        if self._began:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._superseded:
            _remove(path)
        self._remove_unnamed_weights()
        if self._published:
            self._mark_finished()
        self._begin()
        self._began = True

    def _mark_finished(self) -> None:
        """Writes into the records of a finished run's checkpoints that they are such."""
        for path in self._paths("step-"):
            with contextlib.suppress(_TornError):  # nothing goes on from it
                write_json(path / _RECORD, _record(path) | {_FINISHED: True})

    def _write(self, checkpoint: Checkpoint, best_step: int) -> None:
        # In place, with the record last: on a mounted bucket a folder with files in it cannot be renamed.
        name = f"step-{checkpoint.step:08d}"
        folder = self._folder / name
        if folder.exists():
            _remove(folder)
        draft = self._folder / f".best-{best_step:08d}.safetensors"
        try:
            best, digest = self._write_best(checkpoint.best, best_step, draft) if checkpoint.best else ("", "")
            folder.mkdir()
            _save(checkpoint.state, folder / _FILE)
            for events, size in checkpoint.facts["events"].items():
                _copy_beginning(self._events / events, folder / events, size)
            files = {f"{name}/{file.name}": file_sha256(file) for file in sorted(folder.iterdir())}
            files |= {best: digest} if best else {}
            record = {"version": _VERSION, "progress": checkpoint.step, "identity": self._identity, **self._made_by}
            write_json(folder / _RECORD, record | {"files": files, "best": best, "facts": checkpoint.facts})
        except BaseException:
            draft.unlink(missing_ok=True)  # what cannot be used takes no room
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _write_best(self, weights: Arrays, step: int, draft: Path) -> tuple[str, str]:
        """Writes the best weights where this run has not; their file's name and digest."""
        if step not in self._bests:
            _save(weights, draft)
            digest, name = file_sha256(draft), f"best-{step:08d}.safetensors"
            if (self._folder / name).exists() and file_sha256(self._folder / name) != digest:
                name = (
                    f"best-{step:08d}-{digest[:8]}.safetensors"  # a longer run's, whose sums were made in another order
                )
            draft.replace(self._folder / name)
            self._bests[step] = name, digest
        return self._bests[step]

    def prune(self, keep: int, step: int) -> None:
        """Removes whole checkpoints up to a step, but for the newest ones, and weights that none names.

        Args:
            keep: how many stay.
            step: the run's; checkpoints of more steps are a longer run's, and stay.
        """
        found = []
        for path in self._paths("step-"):
            with contextlib.suppress(_TornError):  # set aside at the next start
                if _record(path)["progress"] <= step:
                    found.append(path)
        for path in found[:-keep]:
            _remove(path)
        self._remove_unnamed_weights()

    def _remove_unnamed_weights(self) -> None:
        named = set()
        for path in self._paths("step-"):
            with contextlib.suppress(_TornError):  # names nothing
                named.add(_record(path)["best"])
        for path in self._paths("best-"):
            if path.name not in named:
                path.unlink()


def _record(path: Path) -> dict[str, Any]:
    """Reads what a checkpoint says of itself.

    Raises:
        _TornError: there is no record, or it is none.
        OSError: it cannot be read.
        UserError: it was written by another version of this program.
    """
    try:
        content = (path / _RECORD).read_bytes()
    except FileNotFoundError:
        raise _TornError(f"{_RECORD} is missing") from None
    try:
        record: dict[str, Any] = json.loads(content)
        version = record["version"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise _TornError(f"{_RECORD} is torn: {error}") from None
    if version != _VERSION:
        raise UserError(
            f"{path}: has the format {version}, and this version of lmworks reads {_VERSION}; use the version that wrote it, or "
            "remove the folder to start anew"
        )
    if not _is_whole(record):
        raise _TornError(f"{_RECORD} is torn")
    return record


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether a record has its fields, and names files beside it: it may come from a bucket that others write to."""
    fields = {
        "progress": int,
        "identity": dict,
        "code": dict,
        "versions": dict,
        "files": dict,
        "best": str,
        "facts": dict,
    }
    if not has_fields(record, fields) or not has_fields(record["facts"], {"events": dict}):
        return False
    paths = [*record["files"], *record["facts"]["events"]]
    best_is_known = record["best"] in ("", *record["files"])
    return (
        has_fields(record["identity"], {"config": dict, "data": str})
        and best_is_known
        and all(map(names.is_file, paths))
    )


@functools.cache
def _made_by() -> dict[str, Any]:
    """Returns the digests of the code that trains, and the versions of the libraries.

    Not to be called in the thread that writes: Python 3.11 does not parse in two threads at once (cpython issue 106905).
    """
    return {
        "code": fingerprint.code("lmworks.pipeline.train.component", started=_BEGAN),
        "versions": fingerprint.versions(),
    }


def _changed(record: dict[str, Any]) -> tuple[str, ...]:
    changed = [*fingerprint.changed_code(record["code"]), *fingerprint.changed_versions(record["versions"])]
    return tuple(name.removeprefix(f"{fingerprint.PROJECT}.") for name in changed)


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rest(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _LENGTH}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    keys = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    return [f"train.{key}: was {before.get(key)!r} and is {now.get(key)!r}" for key in keys]


def _save(arrays: Arrays, path: Path) -> None:
    """Writes arrays durably.

    Raises:
        OSError: they could not be; safetensors itself raises an error of its own.
    """
    from safetensors.numpy import save_file

    with _system_errors(path):
        save_file(arrays, path)
    sync(path)


def _load(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    with _system_errors(path):
        loaded: Arrays = load_file(path)
    return loaded


def _copy_beginning(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as file, target.open("wb") as copy:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            copy.write(block)
            size -= len(block)
    sync(target)


@contextlib.contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """Turns an error of safetensors that the system is the cause of into an `OSError`."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        (path / _RECORD).unlink(missing_ok=True)  # first, so that half of it counts as none
        shutil.rmtree(path)
    else:
        path.unlink()
