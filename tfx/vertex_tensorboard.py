"""Live curves in Vertex AI TensorBoard, sent by a process beside the stage that writes them.

    python -m lmworks.tfx.vertex_tensorboard TENSORBOARD/experiments/NAME RUN FOLDER

The sender is Google's own, which imports TensorFlow: in a process of its own it takes nothing from a stage that trains with JAX,
and what goes wrong with it does not end the training.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lmworks.tfx import process, tensorflow_logs

ENVIRONMENT = "LMWORKS_TENSORBOARD"
"""Variable with `projects/P/locations/L/tensorboards/T/experiments/NAME`."""
_LAST_SECONDS = 10.0
"""For what was written last: the sender looks every second."""


@contextlib.contextmanager
def sending(folder: Path, run: str) -> Iterator[None]:
    """Within it events are sent as they are written, where `ENVIRONMENT` says a place.

    Args:
        folder: of the event files; it need not exist yet.
        run: what the curves are called there; a stage that goes on after a restart keeps its name.
    """
    place = os.environ.get(ENVIRONMENT)
    if not place:
        yield
        return
    command = process.python("lmworks.tfx.vertex_tensorboard", place, run, str(folder))
    quiet = {"CUDA_VISIBLE_DEVICES": ""}
    child = process.start(command, env=quiet, stdin=subprocess.DEVNULL)
    try:
        yield
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LAST_SECONDS)
    finally:
        child.kill()
        child.wait()


def main(place: str, run: str, folder: str) -> None:
    """Sends until this process is killed."""
    process.die_with_parent()
    tensorflow_logs.quiet()
    from google.cloud import aiplatform

    found = re.fullmatch(r"projects/([^/]+)/locations/([^/]+)/tensorboards/([^/]+)/experiments/([^/]+)", place)
    assert found, f"{ENVIRONMENT}={place}"
    while not Path(folder).is_dir():
        time.sleep(1.0)
    aiplatform.init(
        project=found[1],
        location=found[2],
        api_endpoint=os.environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", "").rstrip("/") or None,
        api_transport="rest",
    )
    aiplatform.start_upload_tb_log(
        tensorboard_experiment_name=found[4], logdir=folder, tensorboard_id=found[3], run_name_prefix=f"{run}-"
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:  # told, and the stage goes on without
        sys.exit(f"Vertex AI TensorBoard gets no curves: {' '.join(str(error).split())[:300]}")
