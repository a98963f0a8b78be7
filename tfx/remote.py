"""A root at a URL, and its mirror on this machine, in which the runner works as in any root.

    <url>/store/<stage>/<execution>/<output>/…     as in a root of this machine, `artifact.json` last
    <url>/state/<stage>/<key>/…                    what another machine can go on from, while the stage is not done
    <url>/<run>/run.json                           names the execution of each stage; there are no links in a store
    <mirror>/.remote/<stage>/<execution>/<output>   manifests of what the store has

An execution counts only when the manifests of all its outputs are there, so one that was half sent is none. Names of executions are
never used twice and their files never change: a file that is there in full size is not sent again. Files are fetched when a stage
reads them. Locks do not reach other machines: two that run the same at once each make an execution of their own. A large file whose
upload was cut leaves parts in S3 that only a rule of the bucket clears (AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from lmworks.configs.errors import UserError
from lmworks.configs.shown import shown
from lmworks.tfx import containment, locks, names, runs
from lmworks.tfx.artifacts import (
    MANIFEST,
    execution_of,
    manifest_of,
    parse_manifest,
    whole_execution,
    write_json,
)
from lmworks.tfx.kept_state import KeptState
from lmworks.tfx.personal_cache import personal_cache
from lmworks.tfx.screen import Screen
from lmworks.tfx.transfer import File, Refused, Store, TooLarge

ENVIRONMENT = "LMWORKS_MIRRORS"
"""Variable with the folder of the mirrors, in place of `~/.cache/lmworks/roots`."""


class Damaged(NamedTuple):
    """A record of a run that is none, or cannot be read."""

    reason: str
    content: bytes | None
    """None where it cannot be read."""


class RemoteRoot:
    """A root at a URL.

    Args:
        url: of the root, for fsspec.
        screen: where progress is told.

    Raises:
        ConfigError: the URL is of no use.
        UserError: a package is missing.
    """

    def __init__(self, url: str, screen: Screen | None = None) -> None:
        self.screen = screen or Screen()
        self.store = Store(url, self.screen)
        self.url = self.store.url
        mirrors = Path(os.environ.get(ENVIRONMENT) or personal_cache() / "roots")
        readable = re.sub(r"[^A-Za-z0-9.-]+", "-", self.url)[-60:].strip("-")
        # Two servers may each have a bucket of that name.
        server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        digest = hashlib.sha256(f"{server} {self.url}".encode()).hexdigest()[:8]
        self.mirror = mirrors.absolute() / f"{readable}-{digest}"
        self._known = self.mirror / ".remote"
        self._over: dict[str, KeptState] = {}
        """States that nobody needs once what they led to has been sent, by stage."""

    def look(self, stage: str) -> None:
        """Learns which executions of a stage the store has."""
        there = {name for name in self.store.listing(f"store/{stage}") if names.is_identifier(name)}
        known = self._known / stage
        for gone in [path for path in known.glob("*") if path.name not in there]:
            with contextlib.suppress(OSError):  # by another run here, perhaps
                containment.remove(self.mirror, gone)
        with ThreadPoolExecutor(8) as pool:
            new = [name for name in there if not self._record(stage, name)]
            list(pool.map(lambda name: self._learn(stage, name), new))

    def _learn(self, stage: str, name: str) -> None:
        for output in filter(names.is_stage, self.store.listing(f"store/{stage}/{name}")):
            place = f"store/{stage}/{name}/{output}/{MANIFEST}"
            try:
                content = self.store.read(place)
            except (Refused, TooLarge) as error:
                print(f"{shown(error)}; this execution is left out", file=sys.stderr)
                return
            if content is None:
                continue
            manifest = parse_manifest(content)
            record = manifest and execution_of(manifest)
            if not manifest or not record or (record["id"], manifest["output"]) != (f"{stage}/{name}", output):
                print(f"{self.url}/{place}: is no manifest of this execution, which is left out", file=sys.stderr)
                continue
            known = self._known / stage / name / output
            containment.make_folder(self.mirror, known)
            write_json(known / MANIFEST, manifest)

    def executions(self, stage: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Those of a stage that are whole there and have this key, newest first: name and record."""
        for folder in sorted((self._known / stage).glob("*"), reverse=True):
            record = self._record(stage, folder.name)
            if record and record["key"] == key and not self._missing(stage, folder.name):
                yield folder.name, record

    def _missing(self, stage: str, name: str) -> list[str]:
        """Files that the store lacks of an execution that it had whole; `gc` may have been cut, say."""
        there = self.store.sizes(f"store/{stage}/{name}")
        manifests = {
            path.name: self._manifest(stage, name, path.name) for path in (self._known / stage / name).glob("*")
        }
        wanted = {f"{output}/{MANIFEST}": -1 for output in manifests}
        for output, manifest in manifests.items():
            wanted |= {f"{output}/{entry['path']}": entry["size"] for entry in (manifest or {"files": []})["files"]}
        return [path for path, size in wanted.items() if path not in there or (size >= 0 and there[path] != size)]

    def manifest(self, folder: Path, output: str) -> dict[str, Any] | None:
        """The manifest of an output, which is here, or only there."""
        return manifest_of(folder / output) or self._manifest(folder.parent.name, folder.name, output)

    def outputs(self, folder: Path) -> list[str]:
        """Names of an execution's outputs."""
        places = (folder, self._known / folder.parent.name / folder.name)
        return sorted({path.name for place in places if place.is_dir() for path in place.iterdir() if path.is_dir()})

    def send(self, folder: Path) -> None:
        """Makes the store have an execution of the mirror; what is there already is not sent again.

        Raises:
            UserError: the store did not take it; the same again goes on.
        """
        stage, name = folder.parent.name, folder.name
        here = all(manifest_of(folder / output) for output in self.outputs(folder))
        if not self._record(stage, name) or (here and self._missing(stage, name)):
            self._send(folder, stage, name)
        if kept := self._over.pop(stage, None):
            kept.remove()

    def _send(self, folder: Path, stage: str, name: str) -> None:
        place = f"store/{stage}/{name}"
        for output in self.outputs(folder):
            there = self.store.sizes(f"{place}/{output}")
            manifest = manifest_of(folder / output)
            if manifest is None:
                raise UserError(f"{folder / output}: is not whole; run the same command again")
            files = [
                File(folder / output / entry["path"], f"{place}/{output}/{entry['path']}", entry["size"])
                for entry in manifest["files"]
                if there.get(entry["path"]) != entry["size"]
            ]
            self.store.upload(files, stage)
            there = self.store.sizes(f"{place}/{output}") if files else there
            if torn := [entry["path"] for entry in manifest["files"] if there.get(entry["path"]) != entry["size"]]:
                raise UserError(
                    f"{self.url}/{place}/{output}/{torn[0]}: did not arrive whole; run the same command again"
                )
            # Last, and whole: from now on it counts.
            self.store.write(f"{place}/{output}/{MANIFEST}", (folder / output / MANIFEST).read_bytes())
            known = self._known / stage / name / output
            containment.make_folder(self.mirror, known)
            write_json(known / MANIFEST, manifest)

    def fetch(self, folder: Path, output: str) -> None:
        """Makes the mirror have an output that the store has.

        Raises:
            UserError: it cannot be had, or is not what was sent.
        """
        if manifest_of(folder / output):
            return
        stage, name = folder.parent.name, folder.name
        manifest = self._manifest(stage, name, output)
        if manifest is None:
            raise UserError(
                f"{self.url}/store/{stage}/{name}/{output}: is not there any more; run the same command again"
            )
        containment.make_folder(self.mirror, folder / output)
        files = [
            File(
                folder / output / entry["path"],
                f"store/{stage}/{name}/{output}/{entry['path']}",
                entry["size"],
                entry["sha256"],
            )
            for entry in manifest["files"]
        ]
        here = {file for file in files if file.local.is_file() and file.local.lstat().st_size == file.size}
        missing = [file for file in files if file not in here or containment.leads_out(self.mirror, file.local)]
        self.store.download(missing, self.mirror, stage)
        write_json(folder / output / MANIFEST, manifest)

    def tell(self, folder: Path) -> None:
        """Puts a run's record where others find it."""
        self.store.write(f"{folder.name}/{runs.RECORD}", (folder / runs.RECORD).read_bytes())

    def look_at_runs(self) -> None:
        """Learns the records of all runs; one that works here knows better."""
        records, damaged = self.records()
        for reason, _ in damaged:
            print(f"{shown(reason)}; it is left out: run it again, or remove it if it is yours", file=sys.stderr)
        for name, record in records.items():
            folder = self.mirror / name
            try:
                if not locks.held(folder / runs.LOCK):
                    containment.make_folder(self.mirror, folder)
                    runs.write_record(folder, record)
            except (FileExistsError, NotADirectoryError, UserError):
                print(f"{shown(folder)}: is in the way of the run of that name, which is left out", file=sys.stderr)

    def records(self) -> tuple[dict[str, dict[str, Any]], list[Damaged]]:
        """Reads the records of all runs, as the store has them.

        Returns:
            Those that are whole, by the names of the runs' folders; and the others.

        Raises:
            UserError: the store does not answer.
        """
        whole: dict[str, dict[str, Any]] = {}
        damaged: list[Damaged] = []
        for name in self.store.listing(""):
            if name in ("store", "state") or name.startswith("."):
                continue
            try:
                content = self.store.read(f"{name}/{runs.RECORD}")
            except (Refused, TooLarge) as error:
                damaged.append(Damaged(str(error), None))
                continue
            if content is not None and names.is_run(name) and (record := runs.parse_record(content)):
                whole[name] = record
            elif content is not None:
                reason = (
                    f"{self.url}/{shown(name)}/{runs.RECORD}: is no record of a run, perhaps another program's file"
                )
                damaged.append(Damaged(reason, content))
        return whole, damaged

    def record(self, run: str) -> dict[str, Any]:
        """Reads the record of a run; empty where there is none, or none that can be read."""
        try:
            content = self.store.read(f"{run}/{runs.RECORD}")
        except TooLarge:
            content = b""
        record = runs.parse_record(content) if content is not None else {}
        if record is None:
            print(
                f"{self.url}/{run}/{runs.RECORD}: is no record of a run; the results that it held on to are not known",
                file=sys.stderr,
            )
        return record or {}

    def folders(self, place: str) -> list[tuple[str, int]]:
        """Executions in `store` or states in `state`, whole or not: `<stage>/<name>` and bytes."""
        found: dict[str, int] = {}
        for path, size in self.store.sizes(place).items():
            name = "/".join(path.split("/")[:2])
            if names.is_execution(name):
                found[name] = found.get(name, 0) + size
        return sorted(found.items())

    @contextlib.contextmanager
    def keeping(self, stage: str, state: Path) -> Iterator[None]:
        """Within it what a stage keeps in its state goes to the store now and then, and at its end once more where it failed.

        A state that another machine left is fetched first. Where the stage did not fail, the store's is removed when
        what it made has been sent.

        Args:
            stage: its name.
            state: the folder of its state in the mirror.
        """
        kept = KeptState(self.store, stage, state, self.mirror / ".sent" / stage / f"{state.name}.json")
        containment.make_folder(self.mirror, state.parent)
        kept.fetch()
        with kept.sending():
            yield
        self._over[stage] = kept

    def fetch_kind(self, folders: Iterable[Path], kind: str) -> None:
        """Fetches and links the outputs of runs that are of a type, by the type's name."""
        results = [
            (folder / stage, told["execution"])
            for folder in folders
            for stage, told in runs.read_record(folder)["stages"].items()
            if told["execution"]
        ]
        for stage in {place.name for place, _ in results}:
            self.look(stage)
        for place, execution in results:
            source = self.mirror / "store" / execution
            for output in self.outputs(source):
                manifest = self.manifest(source, output)
                if manifest and manifest["type"] == kind:
                    try:
                        self.fetch(source, output)
                    except UserError as error:  # what is wrong with one does not hide the others
                        print(f"{shown(error)}; it is left out", file=sys.stderr)
                        continue
                    containment.make_folder(self.mirror, place)
                    runs.point(place / output, source / output)

    def _manifest(self, stage: str, name: str, output: str) -> dict[str, Any] | None:
        try:
            return parse_manifest(containment.read_file(self._known / stage / name / output / MANIFEST))
        except OSError:
            return None

    def _record(self, stage: str, name: str) -> dict[str, Any] | None:
        """The record of an execution that the store has whole."""
        folder = self._known / stage / name
        found = {path.name: self._manifest(stage, name, path.name) for path in folder.glob("[!.]*")}
        return whole_execution({name: manifest for name, manifest in found.items() if manifest})
