"""Training killed for real, and on several devices and hosts: the same weights. `make test-slow`."""

import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmworks.configs.schema import TrainStage
from tests.conftest import REPOSITORY
from tests.pipeline.training import config, curve, digest, largest_difference, launch, weights

pytestmark = pytest.mark.slow


def on(backend: str, **settings) -> TrainStage:
    """A config of 300 steps on a backend, whatever this process runs."""
    plain = {"steps": 300, "evaluate_every": 100, "checkpoint_every": 10, "backend": backend}
    return config("causal_lm", **plain | settings)


def steps_done(folder: Path) -> int:
    """Of the newest checkpoint."""
    found = folder.glob("state/train/*/model/checkpoints/step-*/checkpoint.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)


def wait_for(process: subprocess.Popen, folder: Path, step: int) -> None:
    while steps_done(folder) < step:
        assert process.poll() is None, folder.with_suffix(".log").read_text()[-3000:]
        time.sleep(0.002)


def said(folder: Path) -> str:
    return folder.with_suffix(".log").read_text()


def finish(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(timeout=300) == 0, said(folder)[-3000:]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_killed_five_times_and_stopped_once(backend, task_sequences, tmp_path):
    settings, sequences = on(backend), task_sequences["causal_lm"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(launch(settings, sequences, whole), whole)
    kills = sorted(random.sample(range(10, 280), 5))
    print("killed after steps", kills)
    for step in kills:
        process = launch(settings, sequences, parts)
        wait_for(process, parts, step)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    before = steps_done(parts)
    process = launch(settings, sequences, parts)
    while "goes on from the checkpoint" not in said(parts).split("Traceback")[-1] or steps_done(parts) <= before:
        if process.poll() is not None:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    if process.wait(timeout=60):  # else it had finished before it was asked
        assert re.search(r"stopped by SIGTERM after step \d+ of 300, a checkpoint is written", said(parts))
        finish(launch(settings, sequences, parts), parts)
    assert digest(parts / "model") == digest(whole / "model")
    for tag in ("train/loss", "validation/loss"):
        assert curve(parts / "logs", tag) == curve(whole / "logs", tag)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start_hosts(settings: TrainStage, sequences: Path, folder: Path) -> list[subprocess.Popen]:
    """Two processes that train together, each as a container of a cluster is started."""
    together = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    return [launch(settings, sequences, folder, JAX_PROCESS_ID=str(host), **together) for host in range(2)]


def test_two_hosts_train_as_one(task_sequences, tmp_path):
    settings = on("jax", dropout=0.0, steps=60, evaluate_every=30)
    one, two = tmp_path / "one", tmp_path / "two"
    finish(launch(settings, task_sequences["causal_lm"], one), one)
    for process in start_hosts(settings, task_sequences["causal_lm"], two):
        finish(process, two)
    assert largest_difference(weights(one / "model"), weights(two / "model")) < 1e-5
    for (step, loss), (other_step, other_loss) in zip(
        curve(one / "logs", "train/loss"), curve(two / "logs", "train/loss"), strict=True
    ):
        assert step == other_step
        assert loss == pytest.approx(other_loss, abs=1e-5)
    # Only one of them writes.
    assert len(list((two / "logs").glob("events*"))) == 1


def test_a_lost_host_is_told_and_the_run_goes_on(task_sequences, tmp_path):
    settings = on("jax", dropout=0.0, steps=2000, evaluate_every=2000, schedule="constant", warmup_ratio=0.0)
    folder = tmp_path / "run"
    first, second = start_hosts(settings, task_sequences["causal_lm"], folder)
    wait_for(first, folder, 20)
    second.kill()
    second.wait()
    assert first.wait(timeout=180) != 0
    assert re.search("hosts is gone|host.*gone|heartbeat|coordination service", said(folder))
    done = steps_done(folder)
    assert done >= 20
    for process in start_hosts(settings.model_copy(update={"steps": done + 20}), task_sequences["causal_lm"], folder):
        finish(process, folder)
    assert f"goes on from the checkpoint of step {done}" in said(folder)


TWO_DEVICES = """
import sys, tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
from lmworks.tfx.launch import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("task", ["text_classification", "causal_lm", "masked_lm"])
def test_mirrored_on_two_logical_devices_trains_as_one(task, task_sequences, tmp_path):
    plain = {"dropout": 0.0, "steps": 30, "evaluate_every": 30, "backend": "tensorflow", "accumulate": 2}
    for strategy in ("single", "mirrored"):
        settings, folder = config(task, strategy=strategy, **plain), tmp_path / strategy
        process = launch(settings, task_sequences[task], folder, code=TWO_DEVICES if strategy == "mirrored" else None)
        finish(process, folder)
    assert "on 2 devices with TensorFlow" in said(tmp_path / "mirrored")
    one, two = (weights(tmp_path / strategy / "model") for strategy in ("single", "mirrored"))
    assert largest_difference(one, two) < 1e-5


def test_the_runner_hands_sigterm_on(tmp_path):
    command = [sys.executable, "-m", "lmworks.pipeline.main", "run", "--config=configs/tiny.yaml", f"--root={tmp_path}"]
    # An evaluation that is interrupted tells no step.
    command += ["--until=train", "--set=train.evaluate_every=100000"]
    command += [
        "--set=train.schedule=constant",
        "--set=train.warmup_ratio=0",
    ]  # so that fewer steps are the beginning of more
    command += ["--set=train.steps=100000", "--set=train.checkpoint_every=20"]
    runner = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    checkpoints = tmp_path / "tiny" / "train" / "live" / "model" / "checkpoints"
    while not list(checkpoints.glob("step-*/checkpoint.json")):
        assert runner.poll() is None
        time.sleep(0.05)
    runner.send_signal(signal.SIGTERM)
    _, errors = runner.communicate(timeout=60)
    assert runner.returncode == 130
    stopped = int(re.search(r"stopped by SIGTERM after step (\d+) of 100000", errors).group(1))
    assert (checkpoints / f"step-{stopped:08d}").exists()
    steps = stopped + 10
    done = subprocess.run(
        [*command[:-2], f"--set=train.steps={steps}"], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "tiny" / "train" / "log.txt").read_text()
    assert f"goes on from the checkpoint of step {stopped}" in log
