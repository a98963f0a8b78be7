"""Training on the Keras backend of this process; `test_train_jax.py` runs this file again on JAX."""

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from lmworks.configs.errors import UserError
from lmworks.pipeline.train import batch_size, hosts
from lmworks.pipeline.train.engine import _build
from lmworks.pipeline.train.feed import Feed
from lmworks.tfx.process import Stopped
from tests.pipeline.training import BACKEND, config, curve, digest, largest_difference, run

GROWN = {
    "evaluate_every": 20,
    "keep_checkpoints": 3,
    "checkpoint_every": 5,
    "schedule": "constant",
    "warmup_ratio": 0.0,
}
TASKS = ("text_classification", "causal_lm", "masked_lm")


@pytest.fixture(scope="module")
def sequences(request, tmp_path_factory) -> dict[str, Path]:
    """Tokenised rows of each task: made here, or given by the process that runs this file on another backend."""
    if "LMWORKS_TEST_SEQUENCES" in os.environ:
        folder = Path(os.environ["LMWORKS_TEST_SEQUENCES"])
        return {task: folder / task for task in TASKS}
    return request.getfixturevalue("task_sequences")


def stop_at(state: Path, step: int) -> threading.Thread:
    """Sends this process SIGTERM when the checkpoint of a step, or of a later one, is there."""

    def wait() -> None:
        whole = "model/checkpoints/step-*/checkpoint.json"
        while not any(int(path.parent.name.removeprefix("step-")) >= step for path in state.glob(whole)):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("task", TASKS)
def test_a_stopped_run_goes_on_exactly(task, sequences, tmp_path):
    # Dropout is on: its random numbers belong to what is resumed.
    settings = config(task, checkpoint_every=7, accumulate=2, evaluate_every=20)
    run(settings, sequences[task], tmp_path / "whole")
    parts = tmp_path / "parts"
    stop_at(parts / "state", 14)
    with pytest.raises(Stopped, match=r"stopped by SIGTERM after step \d+ of 40"):
        run(settings, sequences[task], parts)
    run(settings, sequences[task], parts)
    assert digest(parts / "model") == digest(tmp_path / "whole" / "model")
    for tag in ("train/loss", "train/gradient_norm", "train/learning_rate"):
        assert curve(parts / "logs", tag) == curve(tmp_path / "whole" / "logs", tag)
        assert len(curve(parts / "logs", tag)) == 4
    name = "validation/log_loss" if task == "text_classification" else "validation/loss"
    assert curve(parts / "logs", name) == curve(tmp_path / "whole" / "logs", name)
    assert len(curve(parts / "logs", name)) == 2


@pytest.fixture(scope="module")
def finished(sequences, tmp_path_factory) -> Path:
    """A finished run of 20 steps with its state."""
    folder = tmp_path_factory.mktemp("finished")
    run(config(steps=20, **GROWN), sequences["text_classification"], folder)
    return folder


def copied(finished: Path, folder: Path) -> Path:
    """Another folder with the same state."""
    shutil.copytree(finished / "state", folder / "state")
    return folder


def test_more_steps_go_on_from_the_kept_checkpoint(finished, sequences, tmp_path, capfd):
    whole = run(config(steps=40, **GROWN), sequences["text_classification"], tmp_path / "whole")
    folder = copied(finished, tmp_path / "more")
    more = run(config(steps=40, **GROWN), sequences["text_classification"], folder, settled=True)
    assert "goes on from the checkpoint of step 20" in capfd.readouterr().err
    # With a constant learning rate the longer run is the one that was never shorter.
    assert largest_difference(whole, more) == 0.0
    assert [step for step, _ in curve(folder / "logs", "train/loss")] == [10, 20, 30, 40]


def test_a_finished_run_of_as_many_steps_begins_anew(finished, sequences, tmp_path, capfd):
    folder = copied(finished, tmp_path / "again")
    run(config(steps=20, **GROWN), sequences["text_classification"], folder, settled=True)
    assert "goes on" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 5e-3}, r"train\.learning_rate: was 0\.001 and is 0\.005"),
        ({"seed": 4}, r"train\.seed: was 3 and is 4"),
        ({"batch_size": 16}, r"train\.batch_size x accumulate: was 8 and is 16"),
        ({"dropout": 0.2}, r"train\.model: was .*0\.1.* and is .*0\.2"),
        ({"steps": 10}, r"train\.steps: .* has 20 steps done, and 10 are asked for"),
    ],
)
def test_what_makes_resuming_wrong_is_refused_by_name(finished, sequences, tmp_path, change, words):
    folder = copied(finished, tmp_path / "other")
    with pytest.raises(UserError, match=words):
        run(config(**{"steps": 40, **GROWN, **change}), sequences["text_classification"], folder)
    assert list((folder / "state/model/checkpoints").glob("step-*")), "nothing that was produced is lost"


def test_eight_rows_go_on_as_two_times_four(sequences, tmp_path):
    settings = {"dropout": 0.0, **GROWN}
    run(config(steps=20, **settings), sequences["text_classification"], tmp_path)
    other = copied(tmp_path, tmp_path / "other")
    whole = run(config(steps=30, **settings), sequences["text_classification"], tmp_path)
    cut = run(config(steps=30, batch_size=4, accumulate=2, **settings), sequences["text_classification"], other)
    assert largest_difference(whole, cut) < 1e-5


def test_a_torn_checkpoint_is_skipped_with_a_warning(finished, sequences, tmp_path, capfd):
    settings = config(steps=60, **GROWN)
    folder = tmp_path / "torn"
    stop_at(folder / "state", 15)
    with pytest.raises(Stopped):
        run(settings, sequences["text_classification"], folder)
    found = sorted((folder / "state/model/checkpoints").glob("step-*"))
    assert len(found) > 1
    with (found[-1] / "state.safetensors").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\0" * 100)
    run(settings, sequences["text_classification"], folder)
    said = capfd.readouterr().err
    assert re.search(rf"{found[-1].name}: is no whole checkpoint and is skipped: .* is torn", said)
    assert f"goes on from the checkpoint of step {int(found[-2].name.removeprefix('step-'))}" in said
    whole = run(settings, sequences["text_classification"], tmp_path / "whole")
    assert largest_difference(whole, run(settings, sequences["text_classification"], tmp_path / "again")) == 0.0


def build(settings, sequences, precision="float32"):
    """Work and engine, as a run has them."""
    from lmworks.models import text_classification
    from lmworks.models.tokenizer import open_tokenizer
    from lmworks.pipeline.train.classification import Classification
    from lmworks.tfx.artifacts import Sequences, read

    data = read(Sequences, sequences)
    tokenizer = open_tokenizer(data.path / "tokenizer")

    def make(settings, dtype):
        classifier = text_classification.build(settings.model, None, tokenizer, len(data.properties["labels"]), dtype)
        return Classification(settings, classifier, data)

    return _build(settings, make, precision)


def test_a_step_that_is_no_number_changes_nothing_and_is_counted(sequences):
    work, engine = build(config(dropout=0.0, weight_decay=0.1), sequences["text_classification"])
    engine.step(0, work.micro_batches(0))
    engine.sync()
    before = [np.array(one) for one in work.model.get_weights()]
    batch = work.micro_batches(1)[0]
    broken = batch._replace(inputs={**batch.inputs, "weights": batch.inputs["weights"] * np.float32("nan")})
    engine.step(1, [broken])
    engine.step(2, [broken])
    engine.sync()
    for old, new in zip(before, work.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    rate = engine.learning_rate()
    engine.step(3, work.micro_batches(3))
    totals = engine.read()
    assert (totals.bad_steps, totals.bad_in_a_row, totals.last_bad_step) == (2, 2, 2)
    assert totals.good_steps == 2
    assert np.isfinite(totals.loss)
    assert np.isfinite(totals.gradient_norm)
    assert engine.learning_rate() != rate


def test_a_run_that_only_has_bad_steps_stops_and_names_the_rows(sequences, tmp_path):
    from lmworks.pipeline.sequences import SequenceTable
    from lmworks.tfx.artifacts import Sequences, read

    settings = config(learning_rate=1e30, warmup_ratio=0.0, clip_norm=None, max_bad_steps=5)
    with pytest.raises(
        UserError, match=r"no finite number in \d+ steps in a row, the last of them step 10 \(ids "
    ) as told:
        run(settings, sequences["text_classification"], tmp_path)
    ids = set(SequenceTable(read(Sequences, sequences["text_classification"]), "train").ids.to_pylist())
    named = re.search(r"ids (.*?)\)", str(told.value)).group(1).split(", ")
    assert len(named) == 8
    assert set(named) <= ids


@pytest.mark.parametrize("task", TASKS)
def test_rematerialisation_changes_no_weight(task, sequences, tmp_path):
    one, other = (run(config(task, remat=remat), sequences[task], tmp_path / str(remat)) for remat in (False, True))
    assert largest_difference(one, other) < 1e-5
    assert max(np.abs(value).max() for value in one.values()) > 0.01


@pytest.mark.skipif(BACKEND == "jax", reason="JAX computes no float16 on a processor")
@pytest.mark.parametrize("task", TASKS)
def test_float16_learns_what_float32_does(task, sequences, tmp_path):
    half, full = (run(config(task, precision=precision, dropout=0.0), sequences[task], tmp_path / precision)
                  for precision in ("float16", "float32"))  # fmt: skip
    assert largest_difference(half, full) < 0.02
    name = "validation/log_loss" if task == "text_classification" else "validation/loss"
    one, other = (curve(tmp_path / precision / "logs", name)[-1][1] for precision in ("float16", "float32"))
    assert one == pytest.approx(other, rel=2e-3)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX computes no float16 on a processor")
def test_a_loss_that_is_scaled_too_far_is_scaled_less(sequences):
    work, engine = build(config(precision="float16", dropout=0.0), sequences["text_classification"], "float16")
    engine._scale.assign(2.0**24)
    for step in range(12):
        engine.step(step, work.micro_batches(step))
    totals = engine.read()
    assert totals.overflows >= 1
    assert totals.bad_steps == 0, "an overflow is no fault of the run"
    assert totals.good_steps == 12 - totals.overflows
    assert float(engine._scale) == 2.0 ** (24 - totals.overflows)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="of JAX")
def test_float16_on_a_processor_is_refused_on_jax(sequences, tmp_path):
    with pytest.raises(UserError, match="float16 is not computed by JAX on a processor"):
        run(config(precision="float16"), sequences["text_classification"], tmp_path)


def test_a_strategy_of_the_other_backend_is_refused(sequences, tmp_path):
    wrong = "mirrored" if BACKEND == "jax" else "data_parallel"
    with pytest.raises(UserError, match=rf"train\.strategy: {wrong} is of train\.backend="):
        run(config(strategy=wrong), sequences["text_classification"], tmp_path)


def test_the_largest_batch_is_found_said_and_kept(sequences, tmp_path, capfd):
    settings = config(batch_size="auto", steps=5)
    run(settings, sequences["text_classification"], tmp_path)
    rows = int(re.search(r"batch_size auto: (\d+)", capfd.readouterr().err).group(1))
    assert rows in (8, 16)  # a sixteenth of the rows
    run(settings, sequences["text_classification"], tmp_path, settled=True)
    assert "batch_size auto" not in capfd.readouterr().err


def test_memory_that_does_not_suffice_is_told_with_what_to_change():
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes")
    assert batch_size.is_out_of_memory(error)
    assert not batch_size.is_out_of_memory(ValueError("another one"))
    told = batch_size.advice(config(batch_size=8, accumulate=2))
    assert "train.batch_size=4 with train.accumulate=4 (the same result)" in told
    assert "train.remat=true" in told
    assert "train.remat=true" not in batch_size.advice(config(remat=True))


def test_a_profile_is_written(sequences, tmp_path):
    run(config(steps=12, profile=(3, 6)), sequences["text_classification"], tmp_path)
    assert list((tmp_path / "logs" / "plugins" / "profile").rglob("*.xplane.pb"))


def test_early_stopping_is_resumed_too(sequences, tmp_path):
    settings = config(
        learning_rate=1e-9,
        evaluate_every=5,
        checkpoint_every=5,
        steps=400,
        early_stopping={"patience": 3, "min_delta": 0.1},
    )
    run(settings, sequences["text_classification"], tmp_path / "whole")
    steps = [step for step, _ in curve(tmp_path / "whole" / "logs", "validation/log_loss")]
    assert steps == [5, 10, 15, 20]
    stop_at(tmp_path / "parts" / "state", 10)
    with pytest.raises(Stopped):
        run(settings, sequences["text_classification"], tmp_path / "parts")
    run(settings, sequences["text_classification"], tmp_path / "parts")
    assert [step for step, _ in curve(tmp_path / "parts" / "logs", "validation/log_loss")] == steps


CALLBACK = """
import json, keras

class Watch(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        if batch == 24:
            self.model.stop_training = True

    def on_test_end(self, logs=None):
        self.metrics = sorted(logs)

    def on_train_end(self, logs=None):
        with open("watched.json", "w") as file:
            json.dump({"seen": self.seen, "metrics": self.metrics}, file)

"""


def test_a_callback_of_the_users_own_is_called_and_may_stop(sequences, tmp_path, monkeypatch):
    (tmp_path / "my_callbacks.py").write_text(CALLBACK)
    monkeypatch.chdir(tmp_path)
    settings = config(callbacks=["my_callbacks:Watch"], checkpoint_every=30)
    assert "my_callbacks.py" in settings.external(), "what it does decides the result"
    run(settings, sequences["text_classification"], tmp_path / "run")
    told = json.loads((tmp_path / "watched.json").read_text())
    assert told["seen"] == list(range(25))
    assert "accuracy" in told["metrics"]
    assert [step for step, _ in curve(tmp_path / "run" / "logs", "validation/log_loss")] == [25]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:Watch", "cannot be imported"),
        ("keras.callbacks:NoSuch", "cannot be imported"),
        ("keras.callbacks:ModelCheckpoint", "must be callable without arguments"),
        ("builtins:dict", "gives dict, and a keras.callbacks.Callback is needed"),
    ],
)
def test_what_is_no_callback_is_told(sequences, tmp_path, name, words):
    with pytest.raises(UserError, match=rf"train\.callbacks: {name}: {words}"):
        run(config(callbacks=[name]), sequences["text_classification"], tmp_path)


def test_the_same_tags_for_every_task(sequences, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    common = {
        "train/loss", "train/gradient_norm", "train/learning_rate", "train/examples_per_second", "train/tokens_per_second",
        "train/stall_share", "train/bad_steps", "validation/accuracy",
    }  # fmt: skip
    for task in TASKS:
        run(config(task, steps=10), sequences[task], tmp_path / task)
        events = EventAccumulator(str(tmp_path / task / "logs"))
        events.Reload()
        assert common <= set(events.Tags()["tensors"])


def test_one_host_is_first_and_knows_itself():
    assert hosts.count() == 1
    assert hosts.is_first()
    assert hosts.from_first({"a": [1]}) == {"a": [1]}
    assert hosts.any_host(True)


def test_a_feed_is_in_order_and_raises_what_making_raised():
    def make(step: int) -> int:
        if step == 5:
            raise ValueError("no step 5")
        return step

    with Feed(make, 2, 9) as feed:
        assert [feed.next() for _ in range(3)] == [2, 3, 4]
        with pytest.raises(ValueError, match="no step 5"):
            feed.next()


def test_the_backend_is_the_one_that_is_meant():
    assert keras.backend.backend() == BACKEND
