"""What a stage keeps in its state, in a store too, so that another machine can go on from it.

A stage writes a record (`*.json`) when the files that it speaks of are written. So records are sent last and removed first, and a
copy that was cut is one in which some records are missing. The records that this machine has sent are written down: others in the
store were sent by another machine, which got further unless its records say otherwise: a record may have a number `progress`, that
grows with the work, and the SHA-256 of its `files`, by their names below the folder that the record's own is in. It counts only if
they are there; here, only if they have that content. What lies in a hidden folder is for this machine only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.tfx import containment
from lmworks.tfx.artifacts import file_sha256, parse_json, write_json
from lmworks.tfx.names import is_file
from lmworks.tfx.transfer import File, Store, TooLarge, is_record, records_first

PROGRESS, FILES = "progress", "files"
"""Keys of a record: how far the work is that it speaks of, a number; SHA-256 of its files by name."""
SECONDS = 60.0
"""Between two looks at what is kept."""


class _Record(NamedTuple):
    """A record that says how far the work is."""

    progress: float
    name: str
    files: dict[str, str]
    """SHA-256 by name below the state."""


class KeptState:
    """The state of one stage, here and in the store.

    Args:
        store: of the root.
        stage: its name.
        state: its folder here.
        noted: file in which the records that were sent are written down.
    """

    def __init__(self, store: Store, stage: str, state: Path, noted: Path) -> None:
        self._store, self._stage, self._state, self._noted = store, stage, state, noted
        self._place = f"state/{stage}/{state.name}"
        self._sent: dict[str, tuple[int, int]] = {}
        """Size and time of change of what the store has."""
        self._behind: set[str] = set()
        """Records of another machine in the store, which say less than what was here at the beginning."""

    def fetch(self) -> None:
        """Makes the state here what another machine left, where one got further.

        Raises:
            UserError: it cannot be had, or a record here cannot be read; the store keeps it.
        """
        there = self._store.sizes(self._place)
        here = self._files()
        if there and (not here or self._is_further(there, here)):
            draft = self._state.with_name(f".{self._state.name}.fetched")
            top = self._state.parent
            containment.remove(top, draft)
            files = [File(draft / name, f"{self._place}/{name}", size) for name, size in there.items()]
            self._store.download(files, top, self._stage)
            containment.remove(top, self._state)
            containment.rename(top, draft, self._state)
            self._note(there)
            here = self._files()
        self._behind = self._foreign(there)
        self._sent = {name: seen for name, seen in here.items() if there.get(name) == seen[0]}

    def _is_further(self, there: Mapping[str, int], here: Iterable[str]) -> bool:
        """Whether the store may have more than what is whole here: of another machine, or what was lost here since it was sent."""
        ours, torn = self._newest_whole(here)
        candidates = {name for name in there if name in torn} | self._foreign(there)
        theirs = _records(candidates, self._read_there)
        if ours is None:
            return bool(candidates)
        return any(record.progress > ours and record.files.keys() <= there.keys() for record in theirs)

    def _foreign(self, there: Mapping[str, int]) -> set[str]:
        """Names of the records in the store that this machine has neither sent nor fetched."""
        noted = self._noted_sizes()
        return {name for name, size in there.items() if is_record(name) and size not in noted.get(name, ())}

    def _newest_whole(self, here: Iterable[str]) -> tuple[float | None, set[str]]:
        """Progress of the newest whole record here, None where none is; and the names of those that say more and are torn."""
        torn: set[str] = set()
        for record in _records(here, self._read):
            if all(self._has(name, digest) for name, digest in record.files.items()):
                return record.progress, torn
            torn.add(record.name)
        return None, torn

    def _has(self, name: str, digest: str) -> bool:
        try:
            return file_sha256(self._state / name) == digest
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: OSError) -> UserError:
        return UserError(f"{self._state / name}: cannot be read ({error.strerror}); it stays, as does {self._place}")

    def _read(self, name: str) -> bytes:
        try:
            return containment.read_file(self._state / name)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno == errno.EFBIG:  # no record
                return b""
            raise self._unreadable(name, error) from error

    def _read_there(self, name: str) -> bytes:
        try:
            return self._store.read(f"{self._place}/{name}") or b""
        except TooLarge:
            return b""

    def send(self) -> None:
        """Sends what has changed, and removes there what is gone here, unless another machine got further meanwhile.

        Raises:
            OSError: a file cannot be read.
            UserError: the store did not take it.
        """
        now = self._files()
        changed = {name: seen for name, seen in now.items() if self._sent.get(name) != seen}
        self._note({name: size for name, (size, _) in changed.items()})
        for records in (False, True):
            names = sorted(name for name in changed if is_record(name) == records)
            files = [File(self._state / name, f"{self._place}/{name}", now[name][0]) for name in names]
            self._store.upload(files, self._stage)  # a file that is gone meanwhile ends this round before its record
            self._sent |= {name: now[name] for name in names}
        there = self._store.sizes(self._place)
        if self._foreign(there) - self._behind and self._is_further(there, now):
            return
        gone = records_first(there.keys() - now.keys())
        self._store.remove(f"{self._place}/{name}" for name in gone)
        for name in gone:
            self._sent.pop(name, None)

    def remove(self) -> None:
        """Takes it out of the store."""
        self._store.remove_folder(self._place)
        self._noted.unlink(missing_ok=True)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Within it the state is sent now and then; and once more at the end, where that is a failure."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(SECONDS):
                with contextlib.suppress(UserError, OSError):  # the next look tries again
                    self.send()

        thread = threading.Thread(target=work, name="state", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            ended.set()
            thread.join()
            with contextlib.suppress(UserError, OSError):  # why the stage failed is what is told
                self.send()
            raise
        ended.set()
        thread.join()

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of what is here, without drafts, hidden folders and links."""
        found = {}
        for folder, folders, names in os.walk(self._state):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # removed while we look
                    status = os.lstat(os.path.join(folder, name))
                    if not name.startswith(".") and stat.S_ISREG(status.st_mode):
                        path = Path(folder, name).relative_to(self._state).as_posix()
                        found[path] = (status.st_size, status.st_mtime_ns)
        return found

    def _noted_sizes(self) -> dict[str, list[int]]:
        """The records that this machine has sent, and the sizes that they had."""
        try:
            noted = parse_json(containment.read_file(self._noted))
        except OSError:
            return {}
        if not isinstance(noted, dict):
            return {}
        return {name: sizes for name, sizes in noted.items() if _are_sizes(sizes)}

    def _note(self, sizes: dict[str, int]) -> None:
        noted = self._noted_sizes()
        for name, size in sizes.items():
            if is_record(name):
                noted[name] = sorted({*noted.get(name, []), size})
        self._noted.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._noted, noted)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(size, int) for size in value)


def _records(names: Iterable[str], read: Callable[[str], bytes]) -> list[_Record]:
    """Reads the records that speak of progress, the furthest first."""
    found = []
    for name in filter(is_record, names):
        with contextlib.suppress(ValueError, AttributeError, TypeError, FileNotFoundError):  # torn, or gone meanwhile
            content = parse_json(read(name))
            progress, beside = content.get(PROGRESS), PurePosixPath(name).parent.parent
            files = dict(content.get(FILES, {}))
            if isinstance(progress, int | float) and all(map(is_file, files)):
                found.append(_Record(progress, name, {str(beside / file): digest for file, digest in files.items()}))
    return sorted(found, reverse=True, key=lambda record: record.progress)
