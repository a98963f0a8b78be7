"""The local runner: every stage a subprocess, its result reused where nothing that decides it has changed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmworks.configs.errors import UserError
from lmworks.configs.load import ConfigError
from lmworks.configs.shown import LIMIT, shown
from lmworks.configs.url_secrets import REVEAL
from lmworks.tfx import containment, fingerprint, hosts, last_words, launch, locks, names, process, runs
from lmworks.tfx.artifacts import MANIFEST, SETTLED, manifest_of, settle, whole_execution
from lmworks.tfx.component import Node, check
from lmworks.tfx.metadata import INDEX, Metadata
from lmworks.tfx.remote import RemoteRoot
from lmworks.tfx.screen import Screen

_NO_ROOM = 1 << 16
"""Bytes; a disk with less is full."""
_FIRST, _UNFINISHED = "first time", "an earlier run did not finish it"
"""Reasons for work."""
_GO_ON = "the same command goes on from here"
LOG = "log.txt"
"""Name of a stage's log in its folder of the run."""
_STOP_SECONDS = 30
"""That spot machines give between SIGTERM and the end."""


class StageError(UserError):
    """A stage failed: exit code 1."""


@dataclass(frozen=True)
class Result:
    """What became of one stage of a run."""

    stage: str
    status: str
    """`made`, `cached` or `skipped`."""
    why: str
    seconds: float
    folder: Path | None
    value: Any = None


class LocalRunner:
    """Runs a pipeline under a root folder.

    Args:
        root: of store, state and runs.
        run: name of the run.
        record: what `run.json` says of the run beside its stages: config, versions.
        in_process: run components in this process, for a debugger.
        verbose: show a failed stage's traceback.
        remote: what the root is the mirror of, where it is at a URL.

    Raises:
        ConfigError: the run cannot be called so.
    """

    def __init__(
        self,
        root: Path,
        run: str,
        record: dict[str, Any],
        in_process: bool = False,
        verbose: bool = False,
        remote: RemoteRoot | None = None,
    ) -> None:
        if not names.is_run(run):
            raise ConfigError(
                f"{shown(repr(run), 100)} cannot be the name of a run, which is that of a folder in the root too"
            )
        self.root, self.run, self.in_process, self.verbose = root.absolute(), run, in_process, verbose
        self.folder = self.root / run
        self.record = record
        self._remote = remote
        # A stage in this process writes to the terminal itself, and may stop there for a debugger.
        self.screen = remote.screen if remote else Screen(live=not in_process)
        self._next: dict[str, Node] = {}
        self._early: tuple[Node, process.Waiting, Path] | None = None
        """A process that waits for its stage's turn, and its log."""
        self._kept: dict[str, str] = {}
        """In a remote root: what the run's earlier record names of stages that this one has not come to, as links do here."""
        self._read: dict[str, str] = {}
        """Digests of what the stages so far have read outside the pipeline."""
        self._told = 0.0
        """When other processes were last told of progress."""
        self._told_part = ("", "", "")
        """Of which stage, part and unit that was."""

    def execute(self, nodes: Sequence[Node]) -> list[Result]:
        """Runs the nodes in order.

        Raises:
            StageError: a stage failed; the ones before it stay.
        """
        check(list(nodes))
        if left := hosts.forget_others():
            told = f"{' and '.join(left)} in the environment {'is' if len(left) == 1 else 'are'} ignored"
            print(f"{told}: a run is of this machine alone", file=sys.stderr)
        containment.make_folder(self.root, self.folder)
        metadata = Metadata(self.root)
        # Shared, for two may run under one name; who asks whether this run lives asks for it alone.
        presence = locks.acquire(self.folder / runs.LOCK, shared=True, top=self.root)
        assert presence is not None
        self._forget_progress()
        if self._remote:
            before = self._remote.record(self.run)
            self._kept = {stage: told["execution"] for stage, told in before["stages"].items()} if before else {}
            self._kept |= before.get("kept", {})
        results: dict[str, Result] = {}
        self._next = dict(zip((node.name for node in nodes), nodes[1:], strict=False))
        status, error = "failed", ""
        self.record |= {"began": time.time()}
        working, began = "", time.monotonic()
        try:
            for node in nodes:
                working, began = node.name, time.monotonic()
                self._write(results, "running", running={"stage": node.name, "since": time.time()})
                if node.when is not None and not results[node.when].value:
                    result = Result(node.name, "skipped", f"{node.when} said no", 0.0, None)
                    self._unlink(node.name)
                else:
                    self.screen.begin(node.name)
                    result = self._stage(node, results, metadata)
                results[node.name] = result
                self.screen.result(result.stage, result.status, result.seconds, self._summary(result), result.why)
                working = ""
                if node.check and result.folder:
                    node.check({output: result.folder / output for output in node.component.outputs})
            status = "done"
        except BaseException as failure:
            stopped = isinstance(failure, KeyboardInterrupt)
            status = "stopped" if stopped else "failed"
            error = (str(failure) or f"interrupted; {_GO_ON}") if stopped else launch.explain(failure)
            if working:
                self.screen.broken(working, "stop" if stopped else "fail", time.monotonic() - began)
            raise
        finally:
            self.screen.clear()
            self._end_early()
            # Where the disk is full, or the store is away, this fails too, and must not hide why the run failed.
            with contextlib.nullcontext() if status == "done" else contextlib.suppress(OSError, UserError):
                self._write(results, status, ended=time.time(), **({"error": error} if error else {}))
            metadata.close()
            os.close(presence)
        return list(results.values())

    def _stage(self, node: Node, results: dict[str, Result], metadata: Metadata) -> Result:
        began = time.monotonic()
        inputs = {}
        for name, ref in node.inputs.items():
            folder = results[ref.node].folder
            manifest = self._manifest(folder, ref.output) if folder else None
            if folder is None or manifest is None:
                raise StageError(f"{node.name}: its input {name} vanished from {folder}; run the same command again")
            inputs[name] = (folder / ref.output, manifest["digest"])
        config = node.config.model_dump(mode="json")
        external = self._outside(node, metadata)
        digests = {name: digest for name, (_, digest) in inputs.items()}
        key = fingerprint.key(node.component.entry, config, digests, external)
        with self._lock(node.name, key) as lock:
            found, why = self._find(node, key, {"config": config, "inputs": digests, "external": external}, metadata)
            status = "cached" if found else "made"
            if found is None:
                found = self._adopt(node.name, key, metadata)
                why = "finished by a run that was killed" if found else why
            if found is None:
                if self._was_begun(node, digests, external):
                    why = _UNFINISHED if why == _FIRST else f"{why}; {_UNFINISHED}"
                self.screen.begin(node.name, why)
                folders = {name: path for name, (path, _) in inputs.items()}
                found = self._make_alone(node, key, folders, digests, external, lock)
                metadata.record(found)
            if self._remote:
                self._remote.send(found)
            manifest = self._manifest(found, next(iter(node.component.outputs)))
            if manifest is None:
                raise StageError(f"{node.name}: {found} is not whole; run the same command again")
            # While the key is held, so that at no time an execution in use is neither held nor linked.
            self._link(node, found)
        return Result(node.name, status, why, time.monotonic() - began, found, manifest["execution"]["value"])

    def _outside(self, node: Node, metadata: Metadata) -> dict[str, str]:
        """Digests of what a stage reads outside the pipeline.

        Raises:
            StageError: an earlier stage of this run read the same with another content.
        """
        external = fingerprint.external(node.config, metadata.file_digests.of)
        if changed := fingerprint.changed_outside(self._read, external):
            raise StageError(
                f"{node.name}: {', '.join(changed)} changed since an earlier stage of this run read it; "
                "run the same command again"
            )
        self._read |= external
        return external

    def _make_alone(
        self,
        node: Node,
        key: str,
        inputs: dict[str, Path],
        digests: dict[str, str],
        external: dict[str, str],
        lock: int,
    ) -> Path:
        """Makes an execution while nobody else works on its state, which it may share with executions of other keys."""
        state_key = fingerprint.resume_key(node.component.entry, node.config, digests, external)
        if state_key == key:
            return self._make(node, key, key, inputs, external, [lock])
        with self._lock(node.name, state_key) as other:
            return self._make(node, key, state_key, inputs, external, [lock, other])

    @contextlib.contextmanager
    def _lock(self, stage: str, key: str) -> Iterator[int]:
        """Holds the key. The stage's process inherits the lock, so it stays held until both are gone."""
        path = self.root / "state" / stage / f"{key}.lock"
        handle = locks.acquire(path, wait=False, top=self.root)
        if handle is None:
            self.screen.say(stage, "another run is making the same; waiting for it")
            handle = locks.acquire(path, top=self.root)
        assert handle is not None
        try:
            yield handle
        finally:
            os.close(handle)

    def _find(self, node: Node, key: str, now: dict[str, Any], metadata: Metadata) -> tuple[Path | None, str]:
        """A published execution that may be reused and why, or none and what changed."""
        if self._remote:
            self._remote.look(node.name)
        why = ""
        for folder, _ in metadata.executions(node.component.entry, key):
            # What its manifests say counts, not what the index has of them.
            record = metadata.record(folder) if folder.is_dir() else None
            if record is None or record["key"] != key:
                why = why or ("its result is damaged" if folder.is_dir() else "its result was deleted")
                metadata.forget(folder)
                continue
            gone = self._why_not(node, folder, record)
            if not gone:
                return folder, "nothing changed"
            why = why or gone
        if self._remote:
            for name, record in self._remote.executions(node.name, key):
                folder = self.root / "store" / node.name / name
                gone = self._why_not(node, folder, record)
                if not gone:
                    return folder, "nothing changed"
                why = why or gone
        if not why:
            before = next((record for _, record in metadata.executions(node.component.entry)), None)
            why = _difference(before, now) if before else _FIRST
        return None, why

    def _was_begun(self, node: Node, digests: dict[str, str], external: dict[str, str]) -> bool:
        """Whether the state that the stage goes on from was left by an execution that did not finish."""
        state_key = fingerprint.resume_key(node.component.entry, node.config, digests, external)
        state = self.root / "state" / node.name / state_key
        return state.is_dir() and not (state / SETTLED).exists()

    def _why_not(self, node: Node, folder: Path, record: dict[str, Any]) -> str:
        """Why an execution cannot be reused, though it has the right key; empty where it can."""
        code, versions = fingerprint.changed_code(record["code"]), fingerprint.changed_versions(record["versions"])
        if code or versions:
            return f"changed: {', '.join([*code, *versions])}"
        if node.component.holds is None:
            return ""
        manifests = {name: self._manifest(folder, name) for name in node.component.outputs}
        outputs = {
            name: kind(folder / name, manifest["properties"], digest=manifest["digest"])
            for name, kind in node.component.outputs.items()
            if (manifest := manifests[name])
        }
        return node.component.holds(node.config, **outputs)

    def _adopt(self, stage: str, key: str, metadata: Metadata) -> Path | None:
        """Takes over what a killed run had finished but not renamed, and clears what it had not finished."""
        store = self.root / "store" / stage
        for draft in sorted(store.glob(f".{key}.*")):
            inside = draft.is_dir() and not containment.leads_out(self.root, draft)
            record = (
                whole_execution({path.name: manifest_of(path) for path in draft.iterdir() if path.is_dir()})
                if inside
                else None
            )
            if record:
                fresh = not fingerprint.changed_code(record["code"]) and not fingerprint.changed_versions(
                    record["versions"]
                )
                # By its own name, which its record must bear: another could be that of any folder.
                folder = store / draft.name.removeprefix(f".{key}.")
                ours = (record["id"], record["key"]) == (f"{stage}/{folder.name}", key)
                if fresh and ours and not os.path.lexists(folder):
                    containment.rename(self.root, draft, folder)
                    metadata.record(folder)
                    return folder
            with contextlib.suppress(OSError):  # the next run or `gc` tries again
                containment.remove(self.root, draft)
        return None

    def _make(
        self, node: Node, key: str, state_key: str, inputs: dict[str, Path], external: dict[str, str], held: list[int]
    ) -> Path:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        store = self.root / "store" / node.name
        draft, state = store / f".{key}.{name}", self.root / "state" / node.name / state_key
        executor_input = {
            "inputs": {
                "parameterValues": {"config": node.config.model_dump_json(context=REVEAL)},
                "artifacts": {argument: {"artifacts": [{"uri": str(path)}]} for argument, path in inputs.items()},
            },
            "outputs": {
                "artifacts": {
                    output: {"artifacts": [{"uri": str(draft / output)}]} for output in node.component.outputs
                },
            },
        }
        context = {
            "execution": f"{node.name}/{name}",
            "external": external,
            "memo": str(self.root / INDEX),
            "state": str(state),
        }
        log = self.folder / node.name / LOG
        self._unlink(node.name)
        for folder in (log.parent, store, state):
            containment.make_folder(self.root, folder)
        runs.point(log.parent / runs.LIVE, state)
        with self._remote.keeping(node.name, state) if self._remote else contextlib.nullcontext():
            if self._remote:
                for path in inputs.values():
                    self._remote.fetch(path.parent, path.name)
            try:
                if self.in_process:
                    self._here(node, executor_input, context)
                else:
                    self._spawn(node, executor_input, context, log, held)
                containment.rename(self.root, draft, store / name)
            except BaseException:
                with contextlib.suppress(OSError, UserError):  # why it failed is what is told
                    containment.remove(self.root, draft)
                raise
        settle(state, f"{node.name}/{name}")
        return store / name

    def _here(self, node: Node, executor_input: dict[str, Any], context: dict[str, Any]) -> None:
        try:
            launch.execute(node.component, executor_input, context)
        except (Exception, SystemExit) as error:
            raise StageError(_named(node.name, launch.explain(error))) from error

    def _start(self, node: Node) -> tuple[Node, process.Waiting, Path]:
        """Starts a stage's process; where that is ahead of its work, its imports overlap with the stage before."""
        folder = self.folder / node.name
        containment.make_folder(self.root, folder)
        log = folder / f".log-{os.getpid()}"
        log.unlink(missing_ok=True)
        command = process.python("lmworks.tfx.launch", f"--component={node.component.entry}")
        command.append(f"--early_config={node.config.model_dump_json()}")
        with log.open("xb") as chatter:  # which follows no link
            child = process.Waiting(
                [*command, "--executor_input="], stdin=subprocess.DEVNULL, stdout=chatter, stderr=chatter
            )
        return node, child, log

    def _end_early(self) -> None:
        if self._early:
            _, child, log = self._early
            child.end()
            log.unlink(missing_ok=True)
            self._early = None

    def _hand_over(self, node: Node, work: str, descriptors: Sequence[int], log: Path) -> process.Waiting:
        """Gives the work to the process that was started early for it, or to a new one where there is none alive."""
        if self._early and self._early[0] is not node:
            self._end_early()
        while True:
            _, child, early_log = self._early or self._start(node)
            self._early = None
            given = child.give(work, descriptors)
            early_log.replace(log)
            if given:
                return child
            child.end()

    def _spawn(
        self, node: Node, executor_input: dict[str, Any], context: dict[str, Any], log: Path, held: list[int]
    ) -> None:
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, encoding="utf-8", errors="replace") as events:
            try:
                child = self._hand_over(node, json.dumps([executor_input, context]), [write_end, *held], log)
            finally:
                os.close(write_end)
            said = ""
            try:
                if node.name in self._next:
                    self._early = self._start(self._next[node.name])
                for line in events:
                    event = json.loads(line)
                    if "error" in event:
                        said = event["error"]
                    else:
                        self._progress(node.name, event)
                code = child.child.wait()
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    self._stop(node.name, child, events) or f"{node.name} was interrupted; {_GO_ON}"
                ) from None
            finally:
                child.end()
                self.screen.clear()
                self._forget_progress()
        if code:
            last_words.wait_for_log(log)
            if self.verbose:
                sys.stderr.write(
                    shown(log.read_text(encoding="utf-8", errors="replace")[-LIMIT:], 2 * LIMIT, lines=True)
                )
            how = last_words.how_it_ended(code)
            if not said and shutil.disk_usage(self.root).free < _NO_ROOM:  # libraries in C may crash for want of it
                said = f"{launch.full_disk(str(self.root))} ({how})"
            if not said:
                lines = last_words.last_lines(log)
                said = f"{how}; {f'the last lines of its log: {lines}' if lines else 'its log is empty'}"
            raise StageError(_named(node.name, f"{said} (log: {_shown(log)})"))

    def _stop(self, stage: str, child: process.Waiting, events: Iterable[str]) -> str:
        """Asks the stage's process to end, and gives it time to save its work; its last word."""
        child.child.terminate()
        self.screen.say(stage, "stopping; once more to stop without saving")
        said = ""
        late = threading.Timer(_STOP_SECONDS, child.child.kill)
        late.start()
        with contextlib.suppress(KeyboardInterrupt):
            for line in events:
                said = json.loads(line).get("error", said)
            child.child.wait()
        late.cancel()
        return said

    def _progress(self, stage: str, event: dict[str, Any]) -> None:
        self.screen.progress(stage, event)
        # Only counts of the same are left out: after a word such as `compiling` there may be none for long.
        part = (stage, event["about"], event["unit"])
        if part != self._told_part or time.monotonic() - self._told >= 1.0:
            self._told, self._told_part = time.monotonic(), part
            runs.write_progress(self.folder, stage, event)

    def _forget_progress(self) -> None:
        with contextlib.suppress(OSError):  # nothing that a run should end for
            (self.folder / runs.PROGRESS).unlink()

    def _link(self, node: Node, execution: Path) -> None:
        """Points `<run>/<stage>/<output>` at the store, in one step each."""
        stage = self.folder / node.name
        containment.make_folder(self.root, stage)
        for output in node.component.outputs:
            if (execution / output / MANIFEST).exists():
                runs.point(stage / output, execution / output)
            else:  # only the remote root has it
                (stage / output).unlink(missing_ok=True)
        (stage / runs.LIVE).unlink(missing_ok=True)

    def _unlink(self, stage: str) -> None:
        """Takes an earlier run's links of a stage away, so that a failed run never shows another's result."""
        self._kept.pop(stage, None)
        folder = self.folder / stage
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_symlink():
                containment.remove(self.root, path)

    def _summary(self, result: Result) -> str:
        """What a stage says of itself: the property `summary` of its first output that has one."""
        if result.folder is None:
            return ""
        folder = result.folder
        names = self._remote.outputs(folder) if self._remote else sorted(path.name for path in folder.iterdir())
        manifests = (self._manifest(folder, name) for name in names)
        return next((m["properties"]["summary"] for m in manifests if m and "summary" in m["properties"]), "")

    def _write(self, results: dict[str, Result], status: str, **told: Any) -> None:
        stages = {
            name: {
                "status": result.status,
                "why": result.why,
                "seconds": round(result.seconds, 3),
                "execution": f"{result.folder.parent.name}/{result.folder.name}" if result.folder else None,
                "value": result.value,
                "summary": self._summary(result),
            }
            for name, result in results.items()
        }
        if kept := {stage: execution for stage, execution in self._kept.items() if stage not in results and execution}:
            told |= {"kept": kept}
        told |= {"run": self.run, "status": status, "process": runs.this_process(), "stages": stages}
        runs.write_record(self.folder, {**self.record, **told})
        if self._remote:
            self._remote.tell(self.folder)

    def _manifest(self, folder: Path, output: str) -> dict[str, Any] | None:
        return self._remote.manifest(folder, output) if self._remote else manifest_of(folder / output)


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What of the key changed since the latest execution, as dotted config keys and input names."""
    old = {"config": before["config"], "external": before["external"]}
    old["inputs"] = {name: source["digest"] for name, source in before["inputs"].items()}
    hidden = {name for name, digest in now["external"].items() if fingerprint.is_unknown(digest)}
    changed = [name.partition(".")[2] for name in _leaves(old, now)]
    if changed and hidden.issuperset(changed):
        return f"whether it changed cannot be found out: {', '.join(changed)}"
    return f"changed: {', '.join(changed)}" if changed else "changed: engine"


def _leaves(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        return [
            leaf for name in names for leaf in _leaves(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        ]
    return [path] if old != new else []


def _shown(path: Path) -> str:
    """A path as short as it can be typed."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _named(stage: str, reason: str) -> str:
    """A reason behind the name of its stage, which stands in it once."""
    return reason if reason.startswith((f"{stage}: ", f"{stage}.")) else f"{stage}: {reason}"
