"""What the tests of training share: one small run of each task, on the Keras backend of this process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from lmworks.configs.schema import TrainStage
from lmworks.pipeline.train.component import train
from lmworks.tfx.artifacts import Logs, Model, Sequences, read

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
ARCHITECTURES = {"text_classification": "bert", "causal_lm": "gpt2", "masked_lm": "bert"}
# A layer costs half a second of tracing in every run; one model of two shows what layers do to each other.
LAYERS = {"text_classification": 1, "causal_lm": 1, "masked_lm": 2}
SIZES = {"heads": 2, "hidden_dim": 16, "intermediate_dim": 32}


def config(task: str = "text_classification", **settings) -> TrainStage:
    """A stage's config: 40 steps in float32, evaluated at the end; `dropout` is the model's."""
    model = {"architecture": ARCHITECTURES[task], "layers": LAYERS[task], **SIZES}
    model["dropout"] = settings.pop("dropout", 0.1)
    plain = {
        "steps": 40,
        "batch_size": 8,
        "precision": "float32",
        "learning_rate": 1e-3,
        "evaluate_every": 40,
        "seed": 3,
    }
    monitor = {"monitor": "log_loss"} if task == "text_classification" else {}
    return TrainStage.model_validate({"task": task, "backend": BACKEND, "model": model, **plain, **monitor, **settings})


def outputs(folder: Path, settled: bool = False) -> tuple[Model, Logs]:
    """Those of a training, empty, with the state of earlier ones in the same folder."""
    for name in ("model", "logs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    state = folder / "state"
    return (
        Model(folder / "model", state=state / "model", settled=settled),
        Logs(folder / "logs", state=state / "logs", settled=settled),
    )


def trained(settings: TrainStage, sequences: Path, folder: Path, settled: bool = False) -> Model:
    """Trains in this process; the model, not published, but for its properties in a file beside it."""
    model, logs = outputs(folder, settled)
    train(config=settings, sequences=read(Sequences, sequences), model=model, logs=logs)
    (folder / "properties.json").write_text(json.dumps(model.properties))
    return model


def run(settings: TrainStage, sequences: Path, folder: Path, settled: bool = False) -> dict[str, np.ndarray]:
    """Trains in this process; the weights that were written."""
    return weights(trained(settings, sequences, folder, settled).path)


def weights(folder: Path) -> dict[str, np.ndarray]:
    """Of a preset's folder, by name."""
    import h5py

    found: dict[str, np.ndarray] = {}

    def take(name, entry):
        if isinstance(entry, h5py.Dataset):
            found[name] = np.asarray(entry)

    with h5py.File(folder / "model.weights.h5") as file:
        file.visititems(take)
    return found


def digest(folder: Path) -> str:
    """Of all weights, bit for bit."""
    found = weights(folder)
    return hashlib.sha256(b"".join(found[name].tobytes() for name in sorted(found))).hexdigest()


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Over all weights."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a TensorBoard curve, as a reader of the event files sees it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(one.step, float(make_ndarray(one.tensor_proto))) for one in events.Tensors(tag)]


def launch(
    settings: TrainStage, sequences: Path, folder: Path, code: str | None = None, **environment: str
) -> subprocess.Popen:
    """Starts the stage as a container does, in a process of its own; what it says goes to `<folder>.log`.

    Args:
        settings: of the stage.
        sequences: the artifact's folder.
        folder: of the outputs.
        code: to run in place of the module `launch`.
        **environment: variables beside this process's.
    """
    artifacts = {name: {"artifacts": [{"uri": str(folder / name)}]} for name in ("model", "logs")}
    given = {
        "inputs": {
            "parameterValues": {"config": settings.model_dump_json()},
            "artifacts": {"sequences": {"artifacts": [{"uri": str(sequences)}]}},
        },
        "outputs": {"artifacts": artifacts},
    }
    program = ["-c", code] if code else ["-m", "lmworks.tfx.launch"]
    command = [sys.executable, *program, "--component=lmworks.pipeline.train.component:train"]
    with folder.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [*command, f"--executor_input={json.dumps(given)}", f"--state={folder / 'state'}"],
            stderr=log,
            stdout=log,
            env={**os.environ, **environment},
        )
