"""What is kept of a stage's work for another machine: the furthest whole record counts, and is never removed."""

import json
import shutil
from pathlib import Path

import pytest

from lmworks.tfx.artifacts import file_sha256
from lmworks.tfx.kept_state import KeptState
from lmworks.tfx.screen import Screen
from lmworks.tfx.transfer import Store


class Machine:
    """One that works on the state, with checkpoints as training writes them."""

    def __init__(self, folder: Path, name: str):
        self.state, self.folder = folder / name / "key", folder
        self._noted = folder / name / "noted.json"

    def kept(self) -> KeptState:
        """As a new process has it."""
        store = Store(f"file://{self.folder / 'store'}", Screen())
        return KeptState(store, "train", self.state, self._noted)

    def start(self) -> KeptState:
        kept = self.kept()
        kept.fetch()
        return kept

    def write(self, step: int) -> Path:
        """A checkpoint with weights beside its folder."""
        folder = self.state / "model" / "checkpoints" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "state").write_text(f"state {step:03d}")
        (folder.parent / f"best-{step}").write_text("best")
        names = f"step-{step}/state", f"best-{step}"
        files = {name: file_sha256(folder.parent / name) for name in names}
        (folder / "checkpoint.json").write_text(json.dumps({"progress": step, "files": files}))
        return folder

    def steps(self) -> list[str]:
        return sorted(path.parent.name for path in self.state.rglob("checkpoint.json"))


def stored(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in (folder / "store").rglob("checkpoint.json"))


def lose_state(checkpoint):
    (checkpoint / "state").unlink()


def lose_weights(checkpoint):
    (checkpoint.parent / checkpoint.name.replace("step", "best")).unlink()


def tear_state(checkpoint):
    (checkpoint / "state").write_text("\0" * 9)


TEARS = pytest.mark.parametrize("tear", [lose_state, lose_weights, tear_state])


@TEARS
def test_a_torn_checkpoint_here_does_not_count_against_a_whole_one_of_another_machine(tmp_path, tear):
    ours, theirs = Machine(tmp_path, "a"), Machine(tmp_path, "b")
    ours.start()
    ours.write(20)
    ours.kept().send()
    kept = theirs.start()
    theirs.write(25)
    kept.send()
    tear(ours.write(30))
    kept = ours.start()
    assert ours.steps() == ["step-20", "step-25"]
    kept.send()
    assert stored(tmp_path) == ["step-20", "step-25"]
    assert theirs.state.joinpath("model/checkpoints/step-25/state").read_text() == "state 025"


@TEARS
def test_what_was_lost_here_since_it_was_sent_comes_back(tmp_path, tear):
    machine = Machine(tmp_path, "a")
    kept = machine.start()
    machine.write(10)
    last = machine.write(20)
    kept.send()
    tear(last)
    machine.start().send()
    assert (last / "state").read_text() == "state 020"
    assert (last.parent / "best-20").exists()
    assert stored(tmp_path) == machine.steps() == ["step-10", "step-20"]


@TEARS
def test_a_torn_copy_there_does_not_replace_what_is_whole_here(tmp_path, tear):
    ours, theirs = Machine(tmp_path, "a"), Machine(tmp_path, "b")
    kept = theirs.start()
    if tear is tear_state:
        theirs.write(5)  # in a store only names and sizes are compared
    else:
        tear(theirs.write(25))
    kept.send()
    ours.write(20)
    kept = ours.start()
    assert ours.steps() == ["step-20"]
    kept.send()
    assert stored(tmp_path) == ["step-20"]


def test_what_another_machine_sends_meanwhile_is_removed_only_if_it_is_behind(tmp_path):
    ours, theirs = Machine(tmp_path, "a"), Machine(tmp_path, "b")
    kept, other = ours.start(), theirs.start()
    ours.write(10)
    kept.send()
    theirs.write(50)
    other.send()
    assert stored(tmp_path) == ["step-50"], "theirs is further"
    ours.write(20)
    kept.send()
    assert stored(tmp_path) == ["step-20", "step-50"]
    ours.write(60)
    kept.send()
    assert stored(tmp_path) == ["step-20", "step-60"]


def test_what_is_removed_on_purpose_is_removed_there_too(tmp_path):
    machine = Machine(tmp_path, "a")
    kept = machine.start()
    checkpoints = machine.write(60).parent
    kept.send()
    shutil.rmtree(checkpoints)
    machine.write(5)
    kept = machine.start()
    assert machine.steps() == ["step-5"]
    kept.send()
    assert stored(tmp_path) == ["step-5"]
