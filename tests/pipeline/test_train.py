"""Training on the Keras backend of this process; `test_train_jax.py` runs this file again on JAX."""

import json
import math
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.models import text_classification
from lmworks.models.preset_checks import check_for_task
from lmworks.pipeline.train import batch_size, hosts
from lmworks.pipeline.train.component import train
from lmworks.pipeline.train.curves import Curves
from lmworks.pipeline.train.engine import _build, _divide
from lmworks.pipeline.train.feed import Feed
from lmworks.pipeline.train.loop import Best, _Watch
from lmworks.tfx import launch, progress
from lmworks.tfx.artifacts import SETTLED
from lmworks.tfx.process import Stopped
from tests.pipeline.training import BACKEND, config, curve, digest, largest_difference, run, trained, weights

GROWN = {
    "evaluate_every": 20,
    "checkpoint_every": 5,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "dropout": 0.0,
}
# Dropout is on: its random numbers belong to what is resumed, and to what is computed again.
WHOLE = {"checkpoint_every": 7, "accumulate": 2, "evaluate_every": 20}
TASKS = ("text_classification", "causal_lm", "masked_lm")
MASKED_SLOWLY = (*TASKS[:2], pytest.param(TASKS[2], marks=pytest.mark.slow))
"""Where the two language models share what is tested."""


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


@pytest.fixture(scope="module")
def whole(sequences, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a run of a task that was never stopped, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("whole")

    def made(task: str) -> Path:
        if not (folder / task).exists():
            run(config(task, **WHOLE), sequences[task], folder / task)
        return folder / task

    return made


@pytest.mark.parametrize(("task", "tears"), [("text_classification", False), ("causal_lm", False), ("masked_lm", True)])
def test_a_stopped_run_goes_on_exactly(task, tears, sequences, whole, tmp_path, capfd):
    settings = config(task, **WHOLE)
    stop_at(tmp_path / "state", 14)
    with pytest.raises(Stopped, match="stopped by SIGTERM"):  # after a step, or in an evaluation
        run(settings, sequences[task], tmp_path)
    found = sorted((tmp_path / "state/model/checkpoints").glob("step-*"))
    assert len(found) > 1
    if tears:
        with (found[-1] / "state.safetensors").open("r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"\0" * 100)
    run(settings, sequences[task], tmp_path)
    said = capfd.readouterr().err
    torn = re.search(rf"{found[-1].name}: is no whole checkpoint and is skipped: .* is torn", said)
    assert bool(torn) == tears
    step = int(found[-2 if tears else -1].name.removeprefix("step-"))
    assert f"goes on from the checkpoint of step {step}" in said
    assert digest(tmp_path / "model") == digest(whole(task) / "model")
    name = "validation/log_loss" if task == "text_classification" else "validation/loss"
    counts = {"train/loss": 4, "train/gradient_norm": 4, "train/learning_rate": 4, name: 2}
    for tag, count in counts.items():
        assert curve(tmp_path / "logs", tag) == curve(whole(task) / "logs", tag)
        assert len(curve(tmp_path / "logs", tag)) == count


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
    """Also of two times four rows, as of eight."""
    once = run(config(steps=40, **GROWN), sequences["text_classification"], tmp_path / "once")
    folder = copied(finished, tmp_path / "more")
    (folder / "state" / SETTLED).touch()
    more = run(config(steps=40, **GROWN), sequences["text_classification"], folder, settled=True)
    assert "goes on from the checkpoint of step 20" in capfd.readouterr().err
    # With a constant learning rate the longer run is the one that was never shorter.
    assert largest_difference(once, more) == 0.0
    assert not (folder / "state" / SETTLED).exists(), "what is there now is of a run that is not published yet"
    assert [step for step, _ in curve(folder / "logs", "train/loss")] == [10, 20, 30, 40]
    assert "resumed" not in json.loads((folder / "properties.json").read_text())
    folder, halves = copied(finished, tmp_path / "halves"), {"batch_size": 4, "accumulate": 2, "remat": True}
    cut = run(config(steps=40, **halves, **GROWN), sequences["text_classification"], folder, settled=True)
    assert "goes on from the checkpoint of step 20" in capfd.readouterr().err
    assert 0.0 < largest_difference(once, cut) < 1e-5
    properties = json.loads((folder / "properties.json").read_text())
    settings = {"batch_size x accumulate": ["8 x 1", "4 x 2"], "remat": [False, True]}
    assert properties["resumed"] == [{"step": 20, "settings": settings, "code": []}]
    said = "resumed at step 20 with batch_size x accumulate 4 x 2 (before: 8 x 1), remat True (before: False)"
    assert said in properties["summary"]


def test_a_longer_run_has_nothing_of_the_shorter_ones_end(sequences, tmp_path):
    """Its last log and its last evaluation are at a step where a longer run has none; and a shorter one may come after it."""
    settings = {**GROWN, "evaluate_every": 10, "learning_rate": 0.05, "early_stopping": {"patience": 9}}
    once = tmp_path / "once"
    run(config(steps=40, **settings), sequences["text_classification"], once)
    more = tmp_path / "more"
    for steps in (27, 13, 40):
        shutil.rmtree(more / "logs", ignore_errors=True)  # as every execution begins with an empty folder
        run(config(steps=steps, **settings), sequences["text_classification"], more, settled=True)
    assert digest(more / "model") == digest(once / "model")
    tags = ["train/loss", "train/gradient_norm", "train/learning_rate", "train/bad_steps", "validation/log_loss"]
    assert [curve(more / "logs", tag) for tag in tags] == [curve(once / "logs", tag) for tag in tags]
    records = [next((folder / "state/model/checkpoints").glob("step-*40/checkpoint.json")) for folder in (more, once)]
    best, whole = (json.loads(record.read_text())["facts"]["best"] for record in records)
    assert best == whole
    assert (once / "properties.json").read_text() == (more / "properties.json").read_text()


def published(settings, sequences, root: Path) -> Path:
    """Trains as a container does, with its state under a root; the model's folder."""
    outputs = {name: {"artifacts": [{"uri": str(root / f"{settings.steps}-{name}")}]} for name in ("model", "logs")}
    work = {
        "inputs": {
            "parameterValues": {"config": settings.model_dump_json()},
            "artifacts": {"sequences": {"artifacts": [{"uri": str(sequences)}]}},
        },
        "outputs": {"artifacts": outputs},
    }
    launch.execute(train, work, state_root=str(root / "state"))
    return root / f"{settings.steps}-model"


def test_with_a_falling_learning_rate_more_steps_start_anew_and_say_so(sequences, tmp_path, capfd):
    settings = {**GROWN, "schedule": "linear"}
    data = sequences["text_classification"].resolve()
    short = published(config(steps=10, **settings), data, tmp_path)
    before = digest(short), sorted((tmp_path / "state").rglob("step-*"))
    assert "starts anew" not in capfd.readouterr().err
    long = published(config(steps=20, **settings), data, tmp_path)
    said = "starts anew: with train.schedule=linear the learning rate of a step depends on the length of the run"
    told = capfd.readouterr().err
    assert said in told
    assert "(train.steps: was 10 and is 20); they stay" in told
    assert (digest(short), sorted((tmp_path / "state").rglob("step-*10"))) == before
    run(config(steps=20, **settings), data, tmp_path / "fresh")
    assert digest(long) == digest(tmp_path / "fresh" / "model")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": 5e-3}, r"train\.learning_rate: was 0\.001 and is 0\.005"),
        ({"seed": 4}, r"train\.seed: was 3 and is 4"),
        ({"batch_size": 16}, r"train\.batch_size x accumulate: was 8 and is 16"),
        ({"dropout": 0.2}, r"train\.model: was .*0\.0.* and is .*0\.2"),
        ({"warmup_ratio": 0.1}, r"train\.warm-up steps: was 1 and is 4"),
        ({"schedule": "linear"}, r"train\.steps: was None and is 40"),
    ],
)
def test_what_makes_resuming_wrong_is_refused_by_name(finished, sequences, tmp_path, change, words):
    folder = copied(finished, tmp_path / "other")
    with pytest.raises(UserError, match=words):
        run(config(**{"steps": 40, **GROWN, **change}), sequences["text_classification"], folder)
    assert list((folder / "state/model/checkpoints").glob("step-*")), "nothing that was produced is lost"


def build(settings, sequences, precision="float32"):
    """Work and engine, as a run has them."""
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


def test_the_loss_that_is_shown_is_the_plain_cross_entropy(sequences):
    """As for a language model, label smoothing is trained and not shown."""
    shown, trained = [], []
    for smoothing in (0.0, 0.3):
        work, engine = build(config(dropout=0.0, label_smoothing=smoothing), sequences["text_classification"])
        batch = work.micro_batches(0)[0]
        chances = np.asarray(work._compute({name: batch.inputs[name] for name in text_classification.input_specs()}))
        real = batch.inputs["weights"] > 0
        expected = -np.log(chances[np.arange(len(real)), batch.inputs["labels"]][real].astype(np.float64)).sum()
        engine.step(0, [batch])
        totals = engine.read()
        assert totals.loss == pytest.approx(expected, rel=1e-5)
        shown.append(totals.loss)
        engine.step(1, work.micro_batches(1))
        engine.sync()
        trained.append([np.array(one) for one in work.model.get_weights()])
    assert shown[0] == pytest.approx(shown[1], rel=1e-6)
    assert max(np.abs(one - other).max() for one, other in zip(*trained, strict=True)) > 1e-5, "smoothing is trained"


def test_a_step_without_targets_counts_for_no_mean(sequences):
    work, engine = build(config(dropout=0.0), sequences["text_classification"])
    batch = work.micro_batches(0)[0]
    empty = batch._replace(inputs={**batch.inputs, "weights": batch.inputs["weights"] * 0}, targets=0.0)
    engine.step(0, [empty])
    totals = engine.read()
    assert (totals.targets, totals.loss, totals.gradient_norm, totals.bad_steps) == (0.0, 0.0, 0.0, 0)
    engine.steps(1, [empty, batch])
    totals = engine.read()
    assert totals.targets == batch.targets
    assert totals.loss / totals.targets == pytest.approx(math.log(2), abs=0.2)


def test_the_step_that_a_batch_size_is_tried_with_has_the_largest_arrays(sequences):
    """There are more than 64 steps in an epoch, and the longest row may stand in any."""
    largest = []
    for seed in range(4):
        work, _ = build(config(batch_size=2, seed=seed), sequences["text_classification"])
        assert work.steps_per_epoch > 64
        sizes = [work.micro_batches(step)[0].inputs["token_ids"].size for step in range(work.steps_per_epoch)]
        assert sizes[work.largest_step] == max(sizes)
        largest.append(work.largest_step)
    assert max(largest) >= 64


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
def test_rematerialisation_changes_no_weight(task, sequences, whole, tmp_path):
    again = run(config(task, remat=True, **WHOLE), sequences[task], tmp_path)
    plain = weights(whole(task) / "model")
    assert largest_difference(plain, again) < 1e-5
    assert max(np.abs(value).max() for value in plain.values()) > 0.01


@pytest.mark.skipif(BACKEND == "jax", reason="JAX computes no float16 on a processor")
@pytest.mark.parametrize("task", MASKED_SLOWLY)
def test_float16_learns_what_float32_does(task, sequences, whole, tmp_path):
    # A dropout's mask is a function of the seed and the place, whatever the precision.
    half = run(config(task, precision="float16", **WHOLE), sequences[task], tmp_path)
    assert 0.0 < largest_difference(half, weights(whole(task) / "model")) < 0.02
    name = "validation/log_loss" if task == "text_classification" else "validation/loss"
    one, other = (curve(folder / "logs", name)[-1][1] for folder in (tmp_path, whole(task)))
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


def test_a_strategy_of_the_other_backend_is_refused():
    wrong = "mirrored" if BACKEND == "jax" else "data_parallel"
    with pytest.raises(ValueError, match=rf"strategy: {wrong} is of train\.backend="):
        config(strategy=wrong)


def test_rows_that_cannot_be_divided_are_refused_with_the_fix():
    _divide(config(batch_size=8), 4)
    with pytest.raises(
        UserError, match=r"train\.batch_size: 8 cannot be divided among 3 devices; set it to a multiple of 3"
    ):
        _divide(config(batch_size=8), 3)


def test_the_largest_batch_is_found_said_and_kept(sequences, tmp_path, capfd):
    settings = config(batch_size="auto", steps=5, accumulate=2)
    properties = trained(settings, sequences["text_classification"], tmp_path).properties
    assert properties["auto_batch_size"] == 8
    assert "batch_size auto: 8" in properties["summary"]
    # A sixteenth of the rows is 29, and 16 x 2 are more.
    assert "batch_size auto: 8" in capfd.readouterr().err

    def build(_):
        pytest.fail("what was found is not looked for again")

    assert batch_size.resolved(settings, build, tmp_path / "state" / "model").batch_size == 8


def test_memory_that_does_not_suffice_is_told_with_what_to_change():
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes")
    assert batch_size.is_out_of_memory(error)
    assert not batch_size.is_out_of_memory(ValueError("another one"))
    told = batch_size.advice(config(batch_size=8, accumulate=2))
    assert "train.batch_size=4 with train.accumulate=4 (the same result)" in told
    assert "train.remat=true" in told
    assert "train.remat=true" not in batch_size.advice(config(remat=True))


@pytest.mark.parametrize("task", MASKED_SLOWLY)
def test_several_steps_in_one_call_are_the_same_steps(task, sequences, tmp_path):
    settings = {"checkpoint_every": 7, "steps": 21, "evaluate_every": 21}
    run(config(task, **settings), sequences[task], tmp_path / "one")
    run(config(task, steps_per_execution=4, **settings), sequences[task], tmp_path / "four")
    one, four = (weights(tmp_path / name / "model") for name in ("one", "four"))
    assert largest_difference(one, four) < 1e-6
    losses = [dict(curve(tmp_path / name / "logs", "train/loss")) for name in ("one", "four")]
    assert losses[0] == pytest.approx(losses[1])


def test_a_profile_is_written(sequences, tmp_path):
    run(config(steps=12, profile=(3, 6)), sequences["text_classification"], tmp_path)
    assert list((tmp_path / "logs" / "plugins" / "profile").rglob("*.xplane.pb"))


def test_a_new_run_does_not_show_what_an_earlier_one_left(tmp_path):
    profile = tmp_path / "plugins" / "profile" / "x.xplane.pb"
    profile.parent.mkdir(parents=True)
    profile.touch()
    (tmp_path / "events.out.tfevents.1.a").write_bytes(b"12345")
    with Curves(tmp_path, {"events.out.tfevents.1.a": 3}):
        assert (tmp_path / "events.out.tfevents.1.a").read_bytes() == b"123"
        assert profile.exists()
    with Curves(tmp_path, {}):
        assert not (tmp_path / "events.out.tfevents.1.a").exists()
        assert not profile.exists()


def test_early_stopping_is_resumed_too(sequences, tmp_path):
    settings = config(
        learning_rate=1e-9,
        evaluate_every=5,
        checkpoint_every=5,
        steps=400,
        early_stopping={"patience": 3, "min_delta": 0.1},
    )
    stop_at(tmp_path / "state", 10)
    with pytest.raises(Stopped):
        run(settings, sequences["text_classification"], tmp_path)
    run(settings, sequences["text_classification"], tmp_path)
    # The first one is the best, and three more are waited for, however often it begins.
    assert [step for step, _ in curve(tmp_path / "logs", "validation/log_loss")] == [5, 10, 15, 20]


def judged(settings: TrainStage, *evaluations: dict[str, float], resumed: bool = False) -> Best:
    """The best of some evaluations, 10 steps apart, whose weights are their steps."""
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    model.build((None, 1))
    best = Best(settings)
    for number, metrics in enumerate(evaluations):
        if best.give_up:
            break
        if resumed:
            facts, weights = json.loads(json.dumps(best.facts(), allow_nan=False)), best.named()
            best = Best(settings)
            best.restore(facts, weights)
        model.set_weights([np.full((1, 1), 10.0 * (number + 1))])
        best.judge(model, metrics, 10 * (number + 1))
    assert [float(one[0, 0]) for one in best.weights] == [best.step]
    return best


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("monitor", "evaluations", "step"),
    [
        ("accuracy", [(0.800, 0.5), (0.8095, 0.5)], 20),  # less than min_delta better, and better all the same
        ("accuracy", [(0.8095, 0.5), (0.800, 0.4)], 10),
        ("accuracy", [(1.0, 0.69), (1.0, 0.005), (1.0, 0.007)], 20),  # of equal ones that of the lower log loss
        ("accuracy", [(1.0, 0.5), (1.0, 0.5)], 20),  # then the later one
        ("accuracy", [(1.0, math.nan), (0.5, 0.6), (1.0, math.nan)], 20),  # scores that are NaN have an accuracy
        ("accuracy", [(0.5, math.inf), (0.5, 0.7)], 20),
        ("accuracy", [(0.5, 0.7), (0.5, math.inf)], 10),
        ("accuracy", [(math.nan, math.nan), (math.nan, math.nan)], 20),
        ("f1_macro", [(0.4, 0.7), (0.4, 0.6), (0.4, 0.65)], 20),
        ("log_loss", [(0.9, 0.60), (0.8, 0.595), (0.9, math.nan), (0.9, 0.598)], 20),
        ("log_loss", [(0.9, math.inf), (0.9, 9.0), (0.9, 9.0)], 30),
    ],
)
def test_the_best_value_is_kept_and_ties_go_to_the_lower_log_loss_then_to_the_later(
    monitor, evaluations, step, resumed
):
    settings = config(monitor=monitor, early_stopping={"patience": 9, "min_delta": 0.01})
    metrics = [{"accuracy": one, "f1_macro": one, "log_loss": other} for one, other in evaluations]
    assert judged(settings, *metrics, resumed=resumed).step == step


@pytest.mark.parametrize("resumed", [False, True])
def test_the_best_loss_of_a_language_model_is_kept(resumed):
    settings = config("causal_lm", early_stopping={"patience": 9, "min_delta": 0.1})
    losses = [math.inf, 3.0, 2.95, math.nan, 2.95, 2.97]
    best = judged(settings, *({"loss": loss} for loss in losses), resumed=resumed)
    assert (best.step, best.value) == (50, 2.95)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("accuracies", "stopped"),
    [
        ([0.80, 0.8095, 0.805], True),  # neither is better by more than min_delta
        ([0.80, 0.805, 0.811], False),  # small gains add up
        ([0.80, 0.805, 0.809, 0.83], True),
        ([0.80, 0.80, 0.80], True),  # an equal value counts as waiting
        ([math.nan, math.nan], True),
        ([math.nan, 0.8, 0.8], False),
    ],
)
def test_min_delta_decides_when_training_stops(accuracies, stopped, resumed):
    settings = config(monitor="accuracy", early_stopping={"patience": 2, "min_delta": 0.01})
    best = judged(settings, *({"accuracy": one, "log_loss": 0.5} for one in accuracies), resumed=resumed)
    assert best.give_up == stopped


def test_the_best_is_judged_without_weights():
    """After a resumption only the first host has weights, and all must judge alike."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build((None, 1))
    best = Best(config(early_stopping={"patience": 2}))
    best.restore({"value": 0.5, "log_loss": 0.5, "reference": 0.5, "step": 5, "judged": 5, "waited": 1}, {})
    best.judge(model, {"log_loss": 0.6}, 10)
    assert (best.value, best.step, best.give_up) == (0.5, 5, True)


INTERRUPT = """
import keras, os, signal
from pathlib import Path

class Interrupt(keras.callbacks.Callback):
    def on_test_begin(self, logs=None):
        if not Path("interrupted").exists():
            Path("interrupted").touch()
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_an_evaluation_that_is_interrupted_is_done_again(sequences, tmp_path, monkeypatch, capfd):
    (tmp_path / "interrupting.py").write_text(INTERRUPT)
    monkeypatch.chdir(tmp_path)
    settings = config(callbacks=["interrupting:Interrupt"], steps=10)
    with pytest.raises(Stopped, match="stopped by SIGTERM; the same command goes on from there"):
        run(settings, sequences["text_classification"], tmp_path)
    run(settings, sequences["text_classification"], tmp_path)
    assert "goes on from the checkpoint of step 10" in capfd.readouterr().err
    assert [step for step, _ in curve(tmp_path / "logs", "validation/log_loss")] == [10]


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


def test_what_a_callback_ended_stays_ended(sequences, tmp_path, monkeypatch):
    """Also where the last evaluation was interrupted: the callback that ended it begins anew, and does not see that step."""
    (tmp_path / "ending.py").write_text(CALLBACK.replace("batch == 24", "batch == 4") + INTERRUPT)
    monkeypatch.chdir(tmp_path)
    settings = config(callbacks=["ending:Watch", "ending:Interrupt"], steps=20)
    with pytest.raises(Stopped):
        run(settings, sequences["text_classification"], tmp_path / "run")
    run(settings, sequences["text_classification"], tmp_path / "run")
    assert [step for step, _ in curve(tmp_path / "run" / "logs", "validation/log_loss")] == [5]


def test_what_is_no_callback_is_told(sequences, tmp_path):
    with pytest.raises(UserError, match=r"train\.callbacks: builtins:dict: is no callback class"):
        run(config(callbacks=["builtins:dict"]), sequences["text_classification"], tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_the_model_of_a_run_is_a_preset(task, whole, sequences, tmp_path):
    """By its link or its folder; training goes on from its weights, and its head where it has one."""
    (tmp_path / "link").symlink_to(whole(task) / "model")
    check_for_task(tmp_path / "link", task, 16)
    settings = config(task, model={"preset": str(tmp_path / "link")}, steps=1, evaluate_every=1, learning_rate=1e-9)
    before, after = weights(whole(task) / "model"), run(settings, sequences[task], tmp_path)
    assert before.keys() == after.keys()
    assert all(np.allclose(before[name], after[name], atol=1e-6) for name in before)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_tags_for_every_task(task, whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    common = {
        "train/loss", "train/gradient_norm", "train/learning_rate", "train/examples_per_second", "train/tokens_per_second",
        "train/stall_share", "train/bad_steps", "validation/accuracy",
    }  # fmt: skip
    events = EventAccumulator(str(whole(task) / "logs"))
    events.Reload()
    assert common <= set(events.Tags()["tensors"])


def test_compiling_is_no_speed(whole):
    """With two seconds of it, ten steps of some milliseconds would look twenty times slower."""
    first, *others = (value for _, value in curve(whole("causal_lm") / "logs", "train/tokens_per_second"))
    assert first > min(others) / 5


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


def test_a_validation_stays_on_the_live_line_until_the_next(monkeypatch):
    read_end, write_end = os.pipe()
    monkeypatch.setenv(progress.ENVIRONMENT, str(write_end))
    watch = _Watch(config(), None, 10)
    with progress.within("part"):
        watch.validated(5, "accuracy", 1.0)
    watch.tell(10)
    os.close(write_end)
    with open(read_end) as events:
        facts = [json.loads(event)["facts"] for event in events]
    assert [one["validation accuracy"] for one in facts] == ["1.0000", "1.0000"]
