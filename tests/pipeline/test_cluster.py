"""The compiled pipeline of configs/tiny.yaml by KFP's own engine, each container as a process. `make test-slow`."""

import json
from pathlib import Path

import pytest

from lmworks.tfx.artifacts import Evaluation, Model, manifest_of, read
from tests.conftest import lmworks

pytestmark = pytest.mark.slow


def compiled(folder: Path, *sets: str) -> Path:
    output = folder / "tiny.yaml"
    told = [f"--set={one}" for one in sets]
    done = lmworks("compile", "--config=configs/tiny.yaml", "--target=kubeflow", f"--output={output}", *told)
    assert done.returncode == 0, done.stderr
    return output


def shown(made: Path, task: str) -> dict[str, dict]:
    """The metadata of a task's outputs, as the pages of a cluster read it."""
    told = json.loads((made / task / "executor_output.json").read_text())["artifacts"]
    return {name: entry["artifacts"][0]["metadata"] for name, entry in told.items()}


def test_a_killed_training_is_retried_goes_on_and_gives_the_local_metrics(engine, tiny, tmp_path):
    state = tmp_path / "state"
    engine.kill_when["train"] = (state, "train/*/model/checkpoints/step-*/checkpoint.json")
    train = {
        "retries": {"count": 1, "wait_seconds": 0},
        "volumes": {str(tmp_path): "checkpoints"},
        "state": str(state),
        "log_dir": str(tmp_path / "live"),
    }
    made = engine.run(compiled(tmp_path, f"platform.train={json.dumps(train)}"))
    assert len(engine.said) == 6, engine.said
    assert "goes on from the checkpoint" not in engine.said[2]
    assert "goes on from the checkpoint of step" in engine.said[3]

    evaluation = read(Evaluation, made / "evaluate" / "evaluation")
    there, here = (
        json.loads((folder / "metrics.json").read_text())
        for folder in (evaluation.path, tiny.folder / "evaluate" / "evaluation")
    )
    assert there == here  # to the last digit
    assert manifest_of(made / "export" / "servable") is not None
    assert list((tmp_path / "live").glob("train-*/events.out.tfevents.*"))

    told = shown(made, "evaluate")
    assert told["evaluation_metrics"]["accuracy"] == here["metrics"]["accuracy"]["value"]
    rows = told["evaluation_classes"]["confusionMatrix"]["rows"]
    assert sum(sum(row["row"]) for row in rows) == here["examples"]
    assert told["evaluation_classes"]["confidenceMetrics"][-1]["recall"] == 1.0
    assert told["evaluation"]["summary"].endswith(", blessed")
    for report in ("evaluate/evaluation_report", "ingest/statistics_report"):
        assert (made / report).read_text().startswith("<!doctype html>")


def test_an_unblessed_model_is_not_exported_and_parameters_are_set_at_submission(engine, tmp_path):
    made = engine.run(
        compiled(tmp_path), train_steps="5", train_learning_rate="1e-4", evaluate_thresholds="{log_loss: {max: 0}}"
    )
    assert len(engine.said) == 4, engine.said
    assert not (made / "export").exists()
    config = manifest_of(made / "train" / "model")["execution"]["config"]
    assert (config["steps"], config["learning_rate"], config["batch_size"]) == (5, 1e-4, 16)
    assert read(Model, made / "train" / "model").properties["steps"] == 5
    assert "NOT blessed: log_loss" in shown(made, "evaluate")["evaluation"]["summary"]
