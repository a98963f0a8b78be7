"""The whole pipeline as a user meets it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as reference

from lmworks.tfx import run_views, runs
from lmworks.tfx.artifacts import Model, manifest_of, read
from lmworks.tfx.metadata import Metadata
from tests.conftest import REPOSITORY, lmworks
from tests.pipeline.training import curve
from tests.tiny_reviews import rows

STAGES = ("ingest", "preprocess", "train", "evaluate", "export")


def record(root, run="tiny"):
    return json.loads((root / run / "run.json").read_text())


def statuses(root, run="tiny"):
    return {name: stage["status"] for name, stage in record(root, run)["stages"].items()}


@pytest.fixture
def copy(tiny, tmp_path):
    """The finished run's root, to be changed."""
    return shutil.copytree(tiny.root, tmp_path / "runs", symlinks=True)


def test_every_stage_is_made_and_linked(tiny):
    assert statuses(tiny.root) == dict.fromkeys(STAGES, "made")
    for link in ("ingest/examples", "ingest/statistics", "preprocess/sequences", "train/model", "train/logs",
                 "evaluate/evaluation", "export/servable"):  # fmt: skip
        assert (tiny.folder / link).is_symlink()
        assert manifest_of(tiny.folder / link) is not None
    assert len(tiny.stderr.splitlines()) < 40


def test_metrics_equal_scikit_learn(tiny):
    told = json.loads((tiny.folder / "evaluate/evaluation/metrics.json").read_text())
    table = pq.read_table(tiny.folder / "evaluate/evaluation/predictions.parquet")
    listed = run_views.as_json(tiny.folder, runs.read_record(tiny.folder))["stages"][3]
    assert listed["figures"]["evaluation/metrics/accuracy"] == told["metrics"]["accuracy"]["value"]
    assert table.schema.names == ["id", "label", "prediction", "scores"]
    label, prediction = table["label"].to_pylist(), table["prediction"].to_pylist()
    scores = np.stack(table["scores"].to_numpy())
    assert told["metrics"]["accuracy"]["value"] == pytest.approx(reference.accuracy_score(label, prediction))
    assert told["metrics"]["f1_macro"]["value"] == pytest.approx(reference.f1_score(label, prediction, average="macro"))
    assert told["metrics"]["log_loss"]["value"] == pytest.approx(
        reference.log_loss(label, scores.astype(float)), rel=1e-5
    )
    assert sum(part["examples"] for part in told["slices"]) == told["examples"] == len(label)


def test_model_opens_in_keras_hub_alone(tiny):
    import keras_hub

    model = keras_hub.models.TextClassifier.from_preset(str(tiny.folder / "train/model"))
    scores = model.predict(
        ["The film was great and the plot superb.", "The cast was dull and the ending awful."], verbose=0
    )
    assert scores.argmax(1).tolist() == [1, 0]
    assert model.backbone.dtype_policy.name == "float32"


def test_tensorboard_files_hold_the_curves(tiny):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tiny.folder / "train/logs")).Reload()
    tags = set(events.Tags()["tensors"])
    assert {
        "train/loss",
        "train/learning_rate",
        "train/gradient_norm",
        "validation/accuracy",
        "validation/confusion",
    } <= tags


def test_of_equal_accuracies_the_one_with_the_lowest_log_loss_is_kept(tiny):
    """The first of them was, with a log loss of 0.69 where the last has 0.005."""
    accuracy, log_loss = (
        dict(curve(tiny.folder / "train/logs", f"validation/{name}")) for name in ("accuracy", "log_loss")
    )
    ties = [step for step, value in accuracy.items() if value == max(accuracy.values())]
    assert len(ties) > 1
    kept = read(Model, (tiny.folder / "train/model").resolve()).properties["best_step"]
    assert kept in ties
    assert log_loss[kept] == min(log_loss[step] for step in ties)


def test_predict_gives_one_json_line_per_text(tiny):
    servable = tiny.folder / "export/servable"
    done = lmworks("predict", f"--servable={servable}", stdin="The film was great.\nThe plot was dull.\n")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["label"] for line in lines] == ["positive", "negative"]
    assert list(lines[0]["probabilities"]) == ["negative", "positive"]
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_second_run_is_all_hits(copy):
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={copy}")
    assert done.returncode == 0
    assert statuses(copy) == dict.fromkeys(STAGES, "cached")
    assert "nothing changed" in done.stderr


def test_learning_rate_runs_train_and_later_stages_again(copy):
    done = lmworks(
        "run", "--config=configs/tiny.yaml", f"--root={copy}", "--set=train.learning_rate=1e-3", "--run=other"
    )
    assert done.returncode in (0, 3), done.stderr
    again = {name: status for name, status in statuses(copy, "other").items() if status == "cached"}
    assert set(again) == {"ingest", "preprocess"}
    assert "changed: learning_rate" in record(copy, "other")["stages"]["train"]["why"]


def test_a_store_that_one_config_filled_serves_another(copy, tmp_path):
    recipe = tmp_path / "other.yaml"
    recipe.write_text((REPOSITORY / "configs/tiny.yaml").read_text().replace("name: tiny", "name: other"))
    done = lmworks("run", f"--config={recipe}", f"--root={copy}", "--until=evaluate")
    assert done.returncode == 0, done.stderr
    assert statuses(copy, "other") == dict.fromkeys(STAGES[:-1], "cached")


def test_only_a_line_that_a_stage_has_loaded_runs_it_again(tmp_path):
    """In a copy of the project, whose files are changed as a developer would."""
    project = tmp_path / "lmworks"
    for name in ("configs", "models", "tfx", "pipeline"):
        shutil.copytree(REPOSITORY / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))

    def run() -> dict[str, str]:
        command = [
            sys.executable,
            "-m",
            "lmworks.pipeline.main",
            "run",
            "--config=configs/tiny.yaml",
            "--until=preprocess",
        ]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {name: stage["why"] for name, stage in record(project / "runs")["stages"].items()}

    def add(file: str, line: str) -> None:
        path = project / file
        path.write_text(f"{path.read_text()}\n{line}\n")

    assert set(run().values()) == {"first time"}
    add("pipeline/train/schedule.py", "CHANGED = True")
    add("pipeline/preprocess/selection.py", "# A comment changes nothing.")
    assert set(run().values()) == {"nothing changed"}
    add("pipeline/preprocess/selection.py", "CHANGED = True")
    why = run()
    assert why["ingest"] == "nothing changed"
    assert re.search("changed: .*selection", why["preprocess"])


def test_pairs_of_texts_in_one_process(tmp_path):
    """Two sentences that agree or not, through all stages with --in_process, and out of the servable."""
    first = rows(300)
    half = [{**one, "text_b": other["text"]} for one, other in zip(first, first[1:] + first[:1], strict=True)]
    source = tmp_path / "pairs.csv"
    with source.open("w", newline="") as target:
        writer = csv.DictWriter(target, ["text", "text_b", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(half)
    sets = [
        f"ingest.train={source}",
        "ingest.text_b=text_b",
        "evaluate.slices=[]",
        "train.epochs=1",
        "evaluate.thresholds={}",
    ]
    arguments = ["run", "--config=configs/tiny.yaml", f"--root={tmp_path}", "--run=pairs", "--in_process"]
    done = lmworks(*arguments, *(f"--set={one}" for one in sets))
    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path, "pairs") == dict.fromkeys(STAGES, "made")
    summary = record(tmp_path, "pairs")["stages"]["evaluate"]["summary"]
    assert summary.endswith(", no thresholds set")
    assert "blessed" not in summary
    assert "no thresholds set" in (tmp_path / "pairs/export/servable/README.md").read_text()
    servable = manifest_of(tmp_path / "pairs/export/servable")
    assert servable is not None
    assert servable["properties"]["text_pair"]
    assert servable["properties"]["largest_difference"] < 1e-4
    where = f"--servable={tmp_path / 'pairs/export/servable'}"
    told = json.loads(lmworks("predict", where, "--text=The film was great.", "--text_b=The plot was dull.").stdout)
    assert told["text_b"] == "The plot was dull."
    done = lmworks("predict", where, "--text=The film was great.")
    assert (done.returncode, "give --text_b too" in done.stderr) == (2, True)


def test_deleted_folders_and_index_never_break_a_run(copy):
    shutil.rmtree(copy / "store" / "evaluate")
    shutil.rmtree(copy / "tiny")
    for path in copy.glob("metadata.sqlite*"):
        path.unlink()
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={copy}")
    assert done.returncode == 0, done.stderr
    # The evaluation is made again, has the same content, and so the servable made from it still stands.
    assert statuses(copy) == dict.fromkeys(STAGES, "cached") | {"evaluate": "made"}


def test_unblessed_model_is_not_exported_and_says_why(copy):
    limit = "--set=evaluate.thresholds.log_loss.max=0"
    for expected in ("made", "cached"):
        done = lmworks("run", "--config=configs/tiny.yaml", f"--root={copy}", limit)
        assert done.returncode == 3
        assert "NOT blessed" in done.stderr
        assert statuses(copy) == dict.fromkeys(STAGES, "cached") | {"evaluate": expected, "export": "skipped"}
    assert not (copy / "tiny/export/servable").exists()


def test_lineage(tiny):
    metadata = Metadata(tiny.root)
    servable = (tiny.folder / "export/servable").resolve().relative_to((tiny.root / "store").resolve()).as_posix()
    kinds = {name.split("/")[0] for name in metadata.upstream(servable)}
    assert kinds == {"ingest", "preprocess", "train", "evaluate"}
    examples = (tiny.folder / "ingest/examples").resolve().relative_to((tiny.root / "store").resolve()).as_posix()
    assert servable in metadata.downstream(examples)
    metadata.close()


def test_push_makes_the_next_version(copy, tmp_path):
    target = tmp_path / "models"
    (target / "tiny" / "6").mkdir(parents=True)
    arguments = ["run", "--config=configs/tiny.yaml", f"--root={copy}", f"--set=export.push_to={target}"]
    done = lmworks(*arguments)
    assert done.returncode == 0, done.stderr
    assert (target / "tiny" / "7" / "saved_model.pb").exists()
    assert json.loads((target / "tiny" / "7" / "assets.extra" / "labels.json").read_text()) == ["negative", "positive"]
    assert statuses(copy) == dict.fromkeys(STAGES, "cached") | {"push": "made"}  # the SavedModel is not built again
    done = lmworks(*arguments, "--run=friday")
    assert done.returncode == 0, done.stderr
    assert (target / "friday" / "1" / "saved_model.pb").exists()
    done = lmworks("predict", f"--servable={target / 'friday' / '1'}", "--text=The film was great.")
    assert json.loads(done.stdout)["label"] == "positive"


def test_runs_lists_and_shows(tiny):
    listed = lmworks("runs", f"--root={tiny.root}")
    assert re.search(r"^tiny +done +[-0-9]+ [:0-9]+ +[:0-9]+ +accuracy", listed.stdout, re.MULTILINE)
    shown = lmworks("runs", f"--root={tiny.root}", "tiny")
    assert all(stage in shown.stdout for stage in STAGES)
    assert lmworks("runs", f"--root={tiny.root}", "nope").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "--config"),
        (["run", "--config=configs/none.yaml"], "No such file"),
        (["run", "--config=configs/tiny.yaml", "--set=train.epoch=1", "--set=model.layers=x"], "2 errors"),
        (["run", "--confg=x"], "confg"),
        (["dance"], "unknown command"),
        (["predict"], "--servable"),
    ],
)
def test_bad_usage_is_exit_code_2_and_no_traceback(arguments, words):
    done = lmworks(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_schema():
    assert lmworks("--help").returncode == lmworks("run", "--help").returncode == 0
    assert json.loads(lmworks("schema").stdout)["properties"]["train"]


def test_a_preset_that_does_not_exist(tmp_path):
    sets = ["--set=model={preset: ./nowhere}", "--set=preprocess={}"]
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={tmp_path}", *sets)
    assert done.returncode == 2
    assert "./nowhere: is no folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()
