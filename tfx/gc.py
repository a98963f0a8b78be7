"""What no run links any more, and its removal from the store.

A run's links are what it holds on to: an execution stays as long as a link under the root points into it. What another process
works on stays too, whatever links it: every candidate is looked at again while its key is held, and a runner holds that key
from before it looks for an execution until it has linked it. Links are never followed out of the root.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmworks.configs.errors import ConfigError, UserError
from lmworks.configs.shown import shown
from lmworks.tfx import containment, locks, names, runs
from lmworks.tfx.artifacts import SETTLED, execution_of, manifest_of
from lmworks.tfx.metadata import Metadata
from lmworks.tfx.remote import RemoteRoot

_LISTED = 5
"""Executions of a stage that are named one by one."""

_MEANING = {
    "execution": "executions that no run links",
    "draft": "executions that were not finished",
    "state": "states that work could go on from",
    "link": "links to nothing",
}


@dataclass(frozen=True)
class Item:
    """One thing that may go."""

    kind: str
    """`execution`; `draft`, one that was not finished; `state`, what it could go on from; `link`."""
    stage: str
    path: Path
    size: int
    """Bytes."""


def run(root: Path, state: bool, yes: bool) -> None:
    """Lists what may go, asks, and removes it.

    Args:
        root: of store, state and runs.
        state: also unfinished work that a run links and no process works on.
        yes: do not ask.

    Raises:
        ConfigError: it is no root of runs, it is laid out by links, or there is nobody to ask.
        UserError: what a folder links cannot be found out, or something could not be removed.
    """
    # Another's folder that happens to hold a store is not for us to clear.
    if not (root / "metadata.lock").exists():
        raise ConfigError(f"{root}: nothing was ever run there; give the root of your runs with --root")
    for folder in (root / "store", root / "state"):
        if folder.is_symlink():
            raise ConfigError(f"{folder}: is a link, and gc follows none; put the folder itself there")
    found = find(root, state)
    if not found:
        _remove_locks(root)
        print(f"{root}: nothing to remove")
        return
    if not _agreed(found, yes):
        return
    removed, failed = collect(root, found, state)
    print(f"removed {len(removed)}, {_shown(sum(item.size for item in removed))}")
    if stay := sum(os.path.lexists(item.path) for item in set(found) - set(removed)) - len(failed):
        print(f"{stay} came into use meanwhile and stay")
    if failed:
        more = f" (and {len(failed) - 1} more)" if failed[1:] else ""
        raise UserError(f"{failed[0]}{more}; see whose it is, and run gc again")


def run_remote(remote: RemoteRoot, state: bool, yes: bool) -> None:
    """The same in a root at a URL, where no lock tells who works on what: executions younger than two days stay.

    Args:
        remote: the root.
        state: also unfinished work, however young, but for that of stages that a run works at.
        yes: do not ask.

    Raises:
        ConfigError: there is nobody to ask.
        UserError: the store does not answer, or a run's record cannot be read.
    """
    found, foreign = _find_remote(remote, state)
    for reason in foreign:
        print(f"{shown(reason)}; it names no execution and holds on to nothing", file=sys.stderr)
    if not found:
        print(f"{remote.url}: nothing to remove")
        return
    if not _agreed(found, yes):
        return
    removed = [
        item for item in _find_remote(remote, state)[0] if item in found
    ]  # some may have come into use meanwhile
    for item in removed:
        remote.store.remove_folder(f"{'state' if item.kind == 'state' else 'store'}/{item.path}")
    print(f"removed {len(removed)}, {_shown(sum(item.size for item in removed))}")


def _find_remote(remote: RemoteRoot, state: bool) -> tuple[list[Item], list[str]]:
    """Finds what may go, and says which files of other programs stand where records of runs do.

    Raises:
        UserError: it is not known what a run holds on to.
    """
    whole, damaged = remote.records()
    executions = remote.folders("store")
    foreign: list[str] = []
    unknown: list[str] = []
    for reason, content in damaged:
        is_foreign = content is not None and runs.is_foreign(content, [name for name, _ in executions])
        (foreign if is_foreign else unknown).append(reason)
    if unknown:
        raise UserError(
            f"{unknown[0]}{f' (and {len(unknown) - 1} more)' if unknown[1:] else ''}; what it holds on to is not known, so "
            "nothing was removed: run it again, or see whose it is, and remove it if it is yours and not needed"
        )
    records = list(whole.values())
    wanted = {told["execution"] for record in records for told in record["stages"].values()}
    wanted |= {execution for record in records for execution in record.get("kept", {}).values()}
    working = {
        record["running"]["stage"] for record in records if record["status"] == "running" and "running" in record
    }
    found = []
    for name, size in executions:
        if name not in wanted and _is_old(name.partition("/")[2]):
            found.append(Item("execution", name.partition("/")[0], Path(name), size))
    for name, size in remote.folders("state") if state else []:
        if name.partition("/")[0] not in working:
            found.append(Item("state", name.partition("/")[0], Path(name), size))
    return found, foreign


def _is_old(name: str) -> bool:
    """By the time in an execution's name, which is that of its machine's zone; what has none is not ours."""
    with contextlib.suppress(ValueError):
        return time.time() - time.mktime(time.strptime(name[:15], "%Y%m%d-%H%M%S")) > 2 * 86400
    return False


def _agreed(found: list[Item], yes: bool) -> bool:
    """Shows what may go, and asks."""
    print(describe(found))
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("nothing was removed: there is no terminal to ask at; give --yes")
    with contextlib.suppress(EOFError):
        if input("Remove them? [y/N] ").strip().lower() in ("y", "yes"):
            return True
    print("nothing was removed")
    return False


def find(root: Path, state: bool = False) -> list[Item]:
    """Everything that may go now, without removing it."""
    wanted = _linked(root)
    items = []
    for stage, path in _children(root / "store"):
        items.append(Item("draft" if path.name.startswith(".") else "execution", stage, path, _size(path)))
    items += [Item("state", stage, path, _size(path)) for stage, path in _children(root / "state")]
    return [*(item for item in items if _may_go(root, item, wanted, state)), *_dangling(root)]


def _may_go(root: Path, item: Item, wanted: set[Path], state: bool) -> bool:
    """Whether nothing holds on to an item; not where that cannot be found out."""
    try:
        return not _wanted(root, item, wanted, state) and not locks.held(_lock_of(root, item))
    except FileNotFoundError:  # a run or another gc has removed it meanwhile
        return False
    except OSError as error:
        print(f"{shown(error.filename or item.path)}: cannot be read ({error.strerror}); it stays", file=sys.stderr)
        return False


def describe(items: list[Item]) -> str:
    """The list for a person: by kind and stage, with sizes."""
    lines = []
    for (kind, stage), count in sorted(Counter((item.kind, item.stage) for item in items).items()):
        group = [item for item in items if (item.kind, item.stage) == (kind, stage)]
        lines.append(f"{shown(stage):<11} {_MEANING[kind]}: {count}, {_shown(sum(item.size for item in group))}")
        lines += [f"            {shown(item.path)}" for item in group[:_LISTED]]
        if count > _LISTED:
            lines.append(f"            and {count - _LISTED} more")
    return "\n".join([*lines, f"{len(items)} in all, {_shown(sum(item.size for item in items))}"])


def collect(root: Path, items: list[Item], state: bool = False) -> tuple[list[Item], list[str]]:
    """Removes the items that still may go, when no other `gc` does so.

    An execution goes the way it came, backwards: it is renamed to a draft, leaves the index and is then deleted. A crash leaves
    a draft, which nobody takes for an execution and which the next run or `gc` clears; state likewise under a hidden name.

    Returns:
        Those that were removed, and the links that then pointed at nothing; and why others could not be removed.
    """
    removed, failed = [], []
    with _alone(root), contextlib.closing(Metadata(root)) as metadata:
        for item in itertools.chain(items, _dangling(root)):  # asked for when the items are gone
            try:
                with _held(root, item) as mine:
                    if mine and _remove(root, item, state, metadata):
                        removed.append(item)
            except containment.RefusedError as error:
                failed.append(f"{error}; {item.path} stays")
            except FileNotFoundError:  # a run or another gc has removed it meanwhile
                continue
            except OSError as error:
                failed.append(f"{item.path}: cannot be removed ({error.strerror or error})")
        _remove_locks(root)
    return removed, failed


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Waits until no other `gc` removes anything under the root: two would each leave what the other has just looked at."""
    path = root / ".gc.lock"
    handle = locks.acquire(path, wait=False, top=root)
    if handle is None:
        print("another gc is at work; waiting for it", file=sys.stderr, flush=True)
        handle = locks.acquire(path, top=root)
    assert handle is not None
    try:
        yield
    finally:
        os.close(handle)


def _remove(root: Path, item: Item, state: bool, metadata: Metadata) -> bool:
    if not os.path.lexists(item.path):
        return False
    if item.kind == "link":
        if not _dangles(root, item.path):
            return False
        containment.remove(root, item.path)
        return True
    if _wanted(root, item, _linked(root), state):
        return False
    if item.path.name.startswith("."):  # what nobody reads
        containment.remove(root, item.path)
        return True
    hidden = item.path.with_name(f".{item.path.name}" if item.kind == "state" else f".{_key(item)}.{item.path.name}")
    containment.rename(root, item.path, hidden)
    if item.kind == "execution":
        metadata.forget(item.path)
    containment.remove(root, hidden)
    return True


def _wanted(root: Path, item: Item, targets: set[Path], state: bool) -> bool:
    """Whether a run holds on to the item; `state` gives away unfinished work, and what a finished execution left to go on from."""
    if item.kind == "execution":
        return _wants(targets, item.path)
    if item.kind == "state" and SETTLED in os.listdir(item.path):
        return not state and _settled_is_wanted(root, item, targets)
    return (
        not state and _wants(targets, root / "state" / item.stage / _key(item)) and item.path.name != f".{_key(item)}"
    )


def _settled_is_wanted(root: Path, item: Item, targets: set[Path]) -> bool:
    """Whether a run holds on to the execution that left a state; also where the state does not say which."""
    try:
        execution = containment.read_file(item.path / SETTLED).decode("utf-8", "replace")
    except OSError:
        return True
    return not names.is_execution(execution, item.stage) or _wants(targets, root / "store" / execution)


@contextlib.contextmanager
def _held(root: Path, item: Item) -> Iterator[bool]:
    """Holds what a process that works on the item holds; false where one does."""
    handle = locks.acquire(_lock_of(root, item), wait=False, top=root)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _lock_of(root: Path, item: Item) -> Path:
    if item.kind == "link":
        return item.path.parents[1] / runs.LOCK
    return root / "state" / item.stage / f"{_key(item)}.lock"


def _key(item: Item) -> str:
    """The key of what the item is a result or a draft of."""
    if item.kind == "state":
        return item.path.name.removeprefix(".")
    if item.kind == "draft":
        return item.path.name.split(".")[1]
    manifests = (manifest_of(output) for output in sorted(item.path.iterdir()))
    records = (execution_of(manifest) for manifest in manifests if manifest)
    # A damaged execution has none that is known, and is of use to nobody.
    return next((str(record["key"]) for record in records if record), "damaged")


def _remove_locks(root: Path) -> None:
    """Removes the lock files that nobody holds. Whoever opened one just before finds it gone and makes another."""
    for path in (root / "state").glob("*/*.lock"):
        with contextlib.suppress(OSError, containment.RefusedError):  # gone meanwhile, or not ours to remove
            handle = None if path.lstat().st_size else locks.acquire(path, wait=False, top=root)
            if handle is not None:
                containment.remove(root, path)
                os.close(handle)


def _children(folder: Path) -> list[tuple[str, Path]]:
    """Real folders two levels down, with the name of the one above."""
    return [(stage.name, path) for stage in _folders_in(folder) for path in _folders_in(stage)]


def _folders_in(folder: Path) -> list[Path]:
    """Real folders in a folder; none where it is gone or cannot be read, and what is in it then stays."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []
    except OSError as error:
        print(f"{shown(folder)}: cannot be read ({error.strerror}); what is in it stays", file=sys.stderr)
        return []


def _links(root: Path) -> list[Path]:
    """Every symbolic link under the root, outside of store and state.

    Raises:
        UserError: a folder cannot be read.
    """
    found = []

    def refuse(error: OSError) -> None:
        path = Path(error.filename)
        # A disk that is mounted as the root brings a folder of its own, in which no run is.
        if not isinstance(error, FileNotFoundError) and path != root / "lost+found":
            raise UserError(
                f"{path}: cannot be read ({error.strerror}), and what it links is not known, so nothing is removed: make it "
                f"readable, or move it out of {root}"
            )

    for folder, folders, files in os.walk(root, onerror=refuse):
        for path in (Path(folder, name) for name in (*folders, *files)):
            try:
                found += [path] if path.is_symlink() else []
            except OSError as error:
                refuse(error)
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in ("store", "state")]
    return sorted(found)


def _linked(root: Path) -> set[Path]:
    """What the links point at."""
    return {Path(os.path.realpath(path)) for path in _links(root)}


def _wants(targets: set[Path], path: Path) -> bool:
    """Whether a link points at the path, into it, or at a folder around it."""
    real = Path(os.path.realpath(path))
    return any(target == real or real in target.parents or target in real.parents for target in targets)


def _dangling(root: Path) -> Iterator[Item]:
    for path in _links(root):
        if _dangles(root, path):
            yield Item("link", path.parent.name, path, 0)


def _dangles(root: Path, link: Path) -> bool:
    """Whether a link of a run's stage points into store or state, and at nothing."""
    inside = [Path(os.path.realpath(root / name)) for name in ("store", "state")]
    target = Path(os.path.realpath(link))
    ours = len(link.relative_to(root).parts) == 3 and any(folder in target.parents for folder in inside)
    return ours and not link.exists()


def _size(folder: Path) -> int:
    """Bytes of the files in a folder that are there and can be looked at."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _shown(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
