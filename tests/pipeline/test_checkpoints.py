"""Checkpoints: what is kept, what is cleared, and what a full disk leaves."""

import errno
import resource

import numpy as np
import pytest

from lmworks.pipeline.train.checkpoints import Checkpoint, Checkpoints
from tests.pipeline.training import config


def written(folder, *steps, asked=40, keep=2):
    """Checkpoints of a run of `asked` steps after these."""
    checkpoints = Checkpoints(folder, config(keep_checkpoints=keep), "data", "float32")
    for step in steps:
        state = {"weights": np.full(1000, step, np.float32)}
        checkpoints.write(Checkpoint(step, state, {"0": np.ones(2)}, {"steps": asked}), best_step=step)
    checkpoints.wait()
    return checkpoints


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept_with_the_weights_they_name(tmp_path):
    checkpoints = written(tmp_path, 5, 10, 15)
    kept = ["best-00000010.safetensors", "best-00000015.safetensors", "step-00000010", "step-00000015"]
    assert names(tmp_path) == kept
    found = checkpoints.newest(False, 40)
    assert found.step == 15
    np.testing.assert_array_equal(found.state["weights"], np.full(1000, 15, np.float32))
    np.testing.assert_array_equal(found.best["0"], np.ones(2))


def test_what_is_torn_or_was_being_written_does_not_stand_in_the_way(tmp_path):
    checkpoints = written(tmp_path, 5, 10)
    (tmp_path / "step-00000010" / "checkpoint.json").unlink()
    (tmp_path / ".step-00000012").mkdir()
    (tmp_path / ".best-00000012.safetensors").touch()
    assert checkpoints.newest(False, 40).step == 5
    assert names(tmp_path) == ["best-00000005.safetensors", "step-00000005"]
    # A torn one with more steps would be taken for the newest, and the whole one be removed.
    written(tmp_path, 7, keep=1)
    assert names(tmp_path) == ["best-00000007.safetensors", "step-00000007"]


@pytest.mark.parametrize(("published", "asked", "goes_on"), [(False, 40, True), (True, 40, False), (True, 41, True)])
def test_a_run_that_came_to_its_end_goes_on_for_more_steps_only(tmp_path, published, asked, goes_on):
    # It ended before its last step, as early stopping has it.
    found = written(tmp_path / "x", 20, asked=40).newest(published, asked)
    assert (found is not None) == goes_on
    assert (tmp_path / "x").exists() == goes_on


def test_a_full_disk_is_an_error_of_the_system_and_leaves_what_was_whole(tmp_path):
    checkpoints = written(tmp_path, 5)
    before, limits = names(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        state = {"weights": np.zeros(1 << 16, np.float32)}
        checkpoints.write(Checkpoint(10, state, {}, {"steps": 40}), best_step=0)
        with pytest.raises(OSError, match=r"state\.safetensors") as told:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.value.errno == errno.EFBIG  # for want of a full disk, a file that may not grow
    assert names(tmp_path) == before
    assert checkpoints.newest(False, 40).step == 5
