"""Curves that are sent to Vertex AI TensorBoard while they are written. `make test-slow`."""

import subprocess
import sys

import pytest

from lmworks.pipeline.train.curves import Curves
from lmworks.tfx import vertex, vertex_tensorboard
from tests.tfx.conftest import until

TENSORBOARD = "projects/project-1/locations/europe-west4/tensorboards/7"

pytestmark = pytest.mark.slow


def test_curves_are_sent_while_they_are_written(google, tmp_path, monkeypatch):
    google.made[TENSORBOARD] = {"name": TENSORBOARD, "blobStoragePathPrefix": "bucket"}
    monkeypatch.setenv(vertex_tensorboard.ENVIRONMENT, vertex.place_of(TENSORBOARD, "My_Reviews"))
    monkeypatch.setattr(vertex_tensorboard, "_LAST_SECONDS", 0.0)
    run = f"{TENSORBOARD}/experiments/my-reviews/runs/train-1a2b-default"
    with vertex_tensorboard.sending(tmp_path / "logs", "train-1a2b"), Curves(tmp_path / "logs", {}) as curves:
        for step in (7, 8):
            curves.scalar("loss", 4.0 / step, step)
            curves.sizes()  # brings them to the disk
            until(lambda step=step: len(google.written) == step - 6)
    sent = [request for one in google.written for request in one["writeRunDataRequests"]]
    assert {one["tensorboardRun"] for one in sent} == {run}
    values = [value for one in sent for series in one["timeSeriesData"] for value in series["values"]]
    assert [(value["step"], value["scalar"]["value"]) for value in values] == [("7", pytest.approx(4 / 7)), ("8", 0.5)]
    assert [one["displayName"] for name, one in google.made.items() if name.startswith(f"{run}/timeSeries/")] == [
        "loss"
    ]


def test_curves_that_cannot_be_sent_are_told_in_one_line(google, tmp_path):
    (tmp_path / "logs").mkdir()
    command = [
        sys.executable,
        "-m",
        "lmworks.tfx.vertex_tensorboard",
        f"{TENSORBOARD}/experiments/a",
        "b",
        tmp_path / "logs",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Vertex AI TensorBoard gets no curves: 404 GET http://127.0.0.1")
