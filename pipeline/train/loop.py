"""The training loop of every task and backend: steps, evaluations, checkpoints, the best weights, what is watched.

What computes is an `Engine`, one for each Keras backend; what is learnt is a `Work`, one for each task.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from lmworks.configs.errors import UserError
from lmworks.configs.schema import TrainStage
from lmworks.configs.shown import shown
from lmworks.pipeline.train import hosts
from lmworks.pipeline.train.callbacks import callbacks_of
from lmworks.pipeline.train.checkpoints import Arrays, Checkpoint, Checkpoints
from lmworks.pipeline.train.curves import Curves
from lmworks.pipeline.train.feed import Feed
from lmworks.pipeline.train.history import History
from lmworks.pipeline.train.room import check_room
from lmworks.tfx import outside
from lmworks.tfx.artifacts import Logs, Model, Sequences
from lmworks.tfx.process import Stop, Stopped, stoppable
from lmworks.tfx.progress import LEFT, doing, report, within
from lmworks.tfx.readable import clock, count, counted, metric, number

_LOG_EVERY = 10
"""Steps between two points in TensorBoard; nothing is read back from the device in between."""
_LOG_SECONDS = 30
"""Between two lines in the stage's log."""
LOWER_IS_BETTER = ("loss", "log_loss")


class MicroBatch(NamedTuple):
    """What is computed at once."""

    inputs: dict[str, np.ndarray]
    """All with the same number of rows."""
    targets: float
    """Sum of the weights of its targets."""
    examples: int
    tokens: int
    """Real ones."""


class Work(Protocol):
    """What a task tells the loop."""

    model: keras.Model
    steps_per_epoch: int
    largest_step: int
    """One of the first epoch whose arrays are the largest there are."""

    def input_specs(self) -> dict[str, keras.InputSpec]:
        """Of a micro-batch's inputs."""

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Those of the optimizer step that follows `step` finished ones; a pure function of the config."""

    def ids(self, step: int) -> list[str]:
        """Of the examples or documents of that step."""

    def loss(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Sums over the targets, in nats: the loss to minimise, and the plain cross-entropy, which `train/loss` shows.

        Called while the step is traced.
        """

    def describe(self, loss: float, tokens_per_second: float, devices: int) -> dict[str, float]:
        """What TensorBoard shows beside a training loss; the speed is that of all devices together."""

    def validate(self, step: int, curves: Curves) -> dict[str, float]:
        """Metrics on the validation split; gives pictures and samples to TensorBoard."""


class Totals(NamedTuple):
    """Sums over the good steps since the last reading, and what is known of bad ones."""

    loss: float
    """Nats."""
    targets: float
    gradient_norm: float
    """Global norms before clipping."""
    good_steps: float
    bad_steps: int
    """In the whole run; like the next three."""
    bad_in_a_row: int
    """Most of them one after the other."""
    last_bad_step: int
    overflows: int
    """float16: steps left out because the loss was scaled up too far, which is no fault."""


class Engine(Protocol):
    """What computes: forward, loss, backward, accumulation over micro-batches, clipping, AdamW."""

    devices: int

    def step(self, step: int, batches: list[MicroBatch]) -> None:
        """Starts the optimizer step that follows `step` finished ones; reads nothing back."""

    def steps(self, step: int, batches: list[MicroBatch]) -> None:
        """Starts as many steps as there are micro-batches, of one each and one shape, in one call."""

    def read(self) -> Totals:
        """Waits for the steps that were started; the sums begin anew."""

    def learning_rate(self) -> float:
        """Of the last step."""

    def sync(self) -> None:
        """Makes the model's variables hold the weights of now."""

    def snapshot(self) -> Arrays:
        """Copies of all that `restore` needs; the sums belong to it."""

    def restore(self, state: Arrays) -> None:
        """Goes back to a snapshot."""


class Best:
    """The best evaluation, and when to stop.

    The best is that with the best value of the monitored validation metric; of equal values that with the lower log loss,
    where the task has one, and then the later one. A value that is no finite number never replaces one that is. How much
    better a value must be to restart the patience of early stopping does not decide which weights are kept.
    """

    def __init__(self, config: TrainStage) -> None:
        self.config = config
        self.value, self.step, self.judged = math.nan, 0, 0
        self.weights: list[np.ndarray] = []
        self.give_up = False
        self._log_loss = math.nan
        self._reference, self._waited = math.nan, 0
        self._sign = -1 if config.monitored in LOWER_IS_BETTER else 1

    def judge(self, model: keras.Model, metrics: dict[str, float], step: int) -> None:
        """Keeps the weights if they are the best."""
        value, log_loss = metrics[self.config.monitored], metrics.get("log_loss", math.nan)
        if math.isnan(metrics.get("log_loss", value)):  # the accuracy of scores that are NaN is a number
            value = math.nan
        self.judged = step
        # Not by whether there are weights: after a resumption only the first host has some, and all must judge alike.
        if self._rank(value, log_loss) >= self._rank(self.value, self._log_loss):
            self.value, self._log_loss, self.step = value, log_loss, step
            self.weights = [np.array(one) for one in model.get_weights()]
        patience = self.config.early_stopping
        margin = patience.min_delta if patience else 0.0
        first = math.isnan(self._reference) and not math.isnan(value)
        if first or self._sign * (value - self._reference) > margin:
            self._reference, self._waited = value, 0
        else:
            self._waited += 1
        self.give_up = patience is not None and self._waited >= patience.patience

    def _rank(self, value: float, log_loss: float) -> tuple[float, float]:
        """Higher is better; values that are no finite numbers come last."""
        return (
            self._sign * value if math.isfinite(value) else -math.inf,
            -log_loss if math.isfinite(log_loss) else -math.inf,
        )

    def facts(self) -> dict[str, Any]:
        """All but the weights, for a checkpoint."""
        values = {"value": self.value, "log_loss": self._log_loss, "reference": self._reference}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return {**finite, "step": self.step, "judged": self.judged, "waited": self._waited}

    def restore(self, facts: dict[str, Any], weights: Arrays) -> None:
        """Goes back to what a checkpoint says."""
        values = [math.nan if facts[name] is None else facts[name] for name in ("value", "log_loss", "reference")]
        self.value, self._log_loss, self._reference = values
        self.step, self.judged, self._waited = facts["step"], facts["judged"], facts["waited"]
        self.weights = [weights[name] for name in sorted(weights)]

    def named(self) -> Arrays:
        """The weights, for a checkpoint."""
        return {f"{number:05d}": one for number, one in enumerate(self.weights)}


class Trained(NamedTuple):
    """How a training ended; the model has the best checkpoint's weights."""

    steps: int
    best: Best
    precision: str
    bad_steps: int
    history: History
    auto_batch_size: int | None = None
    """What `batch_size: auto` was resolved to."""

    def properties(self, model: keras.Model) -> dict[str, Any]:
        """What the artifact says."""
        best = self.best
        told = f"{count(model.count_params())} parameters, {counted(self.steps, 'step')} in {self.precision}, "
        told += f"best validation {best.config.monitored} {metric(best.value)} at step {best.step:,}"
        told += f", {counted(self.bad_steps, 'bad step')} left out" if self.bad_steps else ""
        properties: dict[str, Any] = {"best_step": best.step, "steps": self.steps, "precision": self.precision}
        if self.auto_batch_size:
            properties["auto_batch_size"] = self.auto_batch_size
            told += f", batch_size auto: {self.auto_batch_size}"
        if self.history.changes:  # without any, it is the run that was never stopped
            properties["resumed"] = self.history.changes
            told += f", {self.history.summary()}"
        return {**properties, "summary": told}


def steps_of(config: TrainStage, per_epoch: int) -> int:
    """Optimizer steps of the run."""
    return config.steps or max(1, math.ceil(per_epoch * config.epochs))


def run(
    config: TrainStage, work: Work, engine: Engine, precision: str, sequences: Sequences, model: Model, logs: Logs
) -> Trained:
    """Trains, evaluates now and then, and leaves the model with the weights of the best evaluation.

    It goes on from the newest checkpoint in the state of `model`, and ends as if it had never been stopped.

    Raises:
        Stopped: the process was asked to stop; a checkpoint of the last step is written.
        UserError: the loss is no number any more, or a checkpoint belongs to another run.
    """
    steps = steps_of(config, work.steps_per_epoch)
    folder = model.state / "checkpoints"
    checkpoints = Checkpoints(folder, config, sequences.digest, precision, logs.state, model.reopen)
    best, watch, history = Best(config), _Watch(config, work, steps), History(config, engine.devices)
    work.model.stop_training = False
    start, events = _restore(checkpoints, model, work, engine, best, watch, history, steps)
    own = callbacks_of(config.callbacks, work.model)
    outside.has_been_read()
    with (
        stoppable() as stop,
        Feed(work.micro_batches, start, steps) as feed,
        Curves(logs.state if hosts.is_first() else None, events) as curves,
        _written(checkpoints),
    ):
        step = _go_on(config, work, engine, best, watch, history, feed, curves, checkpoints, stop, own, start, steps)
    engine.sync()
    if hosts.is_first():
        if best.step != step:
            work.model.set_weights(best.weights)
        checkpoints.prune(1, step)
        shutil.copytree(logs.state, logs.path, dirs_exist_ok=True)
        check_room(model.path, work.model)
    return Trained(step, best, precision, watch.bad_steps, history)


def _restore(
    checkpoints: Checkpoints, model: Model, work: Work, engine: Engine, best: Best, watch: _Watch, history: History,
    steps: int,
) -> tuple[int, dict[str, int]]:  # fmt: skip
    """Goes back to the newest checkpoint, if there is one: its step, and the sizes of its event files."""
    found = checkpoints.newest(model.settled, steps) if hosts.is_first() else None
    start, facts, changed = hosts.from_first((found.step, found.facts, found.changed_code) if found else (0, None, ()))
    if facts is None:
        others = [state / "checkpoints" for state in model.other_states()] if hosts.is_first() else []
        if reason := checkpoints.describe_other_lengths(others):
            print(f"train: starts anew: {shown(reason)}", file=sys.stderr, flush=True)
        return 0, {}
    engine.restore(hosts.arrays_from_first(found.state if found else {}, engine.snapshot))
    best.restore(facts["best"], found.best if found else {})
    watch.restore(facts["watch"])
    work.model.stop_training = facts["ended"]
    print(f"train: goes on from the checkpoint of step {start}", file=sys.stderr, flush=True)
    history.resume(start, facts["history"], changed)
    return start, facts["events"]


def _go_on(
    config: TrainStage, work: Work, engine: Engine, best: Best, watch: _Watch, history: History,
    feed: Feed[list[MicroBatch]], curves: Curves, checkpoints: Checkpoints, stop: Stop,
    own: keras.callbacks.CallbackList, step: int, steps: int,
) -> int:  # fmt: skip
    """From one step to the last, whose number it returns."""
    evaluate_every = config.evaluate_every or work.steps_per_epoch

    def evaluation_is_due() -> bool:
        # A callback that stops the run has its last step evaluated too.
        ends = step == steps or work.model.stop_training
        return best.judged != step and (step % evaluate_every == 0 or ends)

    start = step
    watch.begin(step, feed.waited)
    own.on_train_begin()
    with _profile(config, curves) as profile:
        while True:
            # A checkpoint of this very step exists: a last log or an evaluation that is interrupted is done again, and a longer
            # run, which has none here, goes on from the checkpoint as if there had been none.
            if step == steps and step % _LOG_EVERY:
                watch.log(step, engine, feed.waited, curves)
            if step and evaluation_is_due():
                engine.sync()
                own.on_test_begin()
                at_once = stop.at_once() if hosts.count() == 1 else contextlib.nullcontext()
                with at_once, watch.paused(), within(f"validation at step {step:,} of {steps:,}"):
                    metrics = hosts.from_first(work.validate(step, curves) if hosts.is_first() else {})
                for name, value in metrics.items():
                    curves.scalar(f"validation/{name}", value, step)
                best.judge(work.model, metrics, step)
                own.on_test_end(metrics)
                if step % work.steps_per_epoch == 0:
                    own.on_epoch_end(step // work.steps_per_epoch - 1, metrics)
                plain = {
                    name: value for name, value in metrics.items() if "/" not in name
                }  # without those of each class
                print(f"train: step {step}: {_told(plain)}", file=sys.stderr, flush=True)
                watch.validated(step, config.monitored, metrics[config.monitored])
            if step >= steps or best.give_up or (work.model.stop_training and best.judged == step):
                own.on_train_end()
                return step
            profile(step)
            before = step
            step = min(before + config.steps_per_execution, _next_pause(config, evaluate_every, before, steps))
            if before == start:
                doing(f"step {start:,} of {steps:,}, compiling the first one")
            batches = [feed.next() for _ in range(before, step)]
            _start(engine, before, batches)
            watch.count(batches)
            logs_now = step % _LOG_EVERY == 0
            if before == start and not logs_now and step < steps:
                watch.begin(step, feed.waited)  # the first call compiles, which is no speed
            watch.tell(step)
            if logs_now:
                facts = watch.log(step, engine, feed.waited, curves)
            for done in range(before, step):
                own.on_train_batch_end(done, facts if logs_now and done == step - 1 else {})
            # Several hosts agree on it now and then, since that takes them all.
            stops = bool(stop.by) if hosts.count() == 1 else logs_now and hosts.any_host(bool(stop.by))
            if (step % config.checkpoint_every == 0 or evaluation_is_due() or stops) and hosts.is_first():
                checkpoints.wait()  # its arrays are given free before there are new ones
                state = {
                    "best": best.facts(),
                    "watch": watch.facts(),
                    "events": curves.sizes(),
                    "ended": bool(work.model.stop_training),
                    "history": history.facts(),
                }
                checkpoints.write(Checkpoint(step, engine.snapshot(), best.named(), state), best.step)
            if stops:
                checkpoints.wait()
                raise Stopped(
                    f"stopped by {stop.by or 'another host'} after step {step} of {steps}, a checkpoint is written; "
                    "the same command goes on from there"
                )


def _next_pause(config: TrainStage, evaluate_every: int, step: int, steps: int) -> int:
    """The step after which something is read, written or watched."""
    rhythms = (_LOG_EVERY, config.checkpoint_every, evaluate_every)
    profiled = [one for one in config.profile or () if one > step]
    return min([steps, *profiled, *((step // every + 1) * every for every in rhythms)])


def _start(engine: Engine, step: int, batches: list[list[MicroBatch]]) -> None:
    """Starts the steps that these are the micro-batches of, in one call where they are alike."""
    shapes = {tuple(value.shape for value in one.inputs.values()) for parts in batches for one in parts}
    if len(batches) > 1 and len(shapes) == 1 and all(len(parts) == 1 for parts in batches):
        engine.steps(step, [one for parts in batches for one in parts])
        return
    for place, parts in enumerate(batches):
        engine.step(step + place, parts)


@contextlib.contextmanager
def _written(checkpoints: Checkpoints) -> Iterator[None]:
    """Leaves only when the last checkpoint is on the disk, whatever ends the work."""
    try:
        yield
    finally:
        checkpoints.wait()


class _Watch:
    """Counts, speeds and what is said of them."""

    def __init__(self, config: TrainStage, work: Work, steps: int) -> None:
        self._config, self._work, self._steps = config, work, steps
        self.bad_steps = 0
        self._examples = self._tokens = 0
        self._first = 0
        self._began = self._since = self._said_at = time.monotonic()
        self._waited = 0.0
        self._loss: dict[str, float] = {}
        self._validated: dict[str, str] = {}
        self._speeds: dict[str, float] = {}
        """What was said last beside the number of steps."""

    def begin(self, step: int, waited: float) -> None:
        """The clock starts, and what was counted is forgotten."""
        self._first, self._waited = step, waited
        self._examples = self._tokens = 0
        self._began = self._since = self._said_at = time.monotonic()

    def count(self, steps: list[list[MicroBatch]]) -> None:
        """So many steps more."""
        self._examples += sum(batch.examples for batches in steps for batch in batches)
        self._tokens += sum(batch.tokens for batches in steps for batch in batches)

    def validated(self, step: int, name: str, value: float) -> None:
        """Says what a validation gave, now and until the next one."""
        self._validated = {f"validation {name}": metric(value)}
        self.tell(step)

    def tell(self, step: int) -> None:
        """Says how far the run is, with what is known since the last reading of the device."""
        facts: dict[str, float | str] = {**self._loss, **self._validated, **self._speeds}
        if self._first < step < self._steps:
            facts = {LEFT: self._left(step), **facts}
        report(step, self._steps, "steps", **facts)

    def _left(self, step: int) -> float:
        """Seconds."""
        return (time.monotonic() - self._began) / max(step - self._first, 1) * (self._steps - step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what is done within it out of the speeds."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def facts(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"bad_steps": self.bad_steps}

    def restore(self, facts: dict[str, Any]) -> None:
        """Goes back to what a checkpoint says."""
        self.bad_steps = facts["bad_steps"]

    def log(self, step: int, engine: Engine, waited: float, curves: Curves) -> dict[str, float]:
        """Writes the means since the last call to TensorBoard, says how far the run is, and returns what it wrote.

        Raises:
            UserError: too many steps in a row were bad.
        """
        totals = engine.read()
        now = time.monotonic()
        seconds = max(now - self._since, 1e-9)
        self.bad_steps = totals.bad_steps
        if totals.bad_in_a_row >= self._config.max_bad_steps:
            raise UserError(self._blame(totals))
        speed, rows = self._tokens / seconds, self._examples / seconds
        stalled = (waited - self._waited) / seconds
        facts: dict[str, float] = {}
        if totals.targets:  # without any there is no loss, which is not a loss of zero
            loss = totals.loss / totals.targets
            facts = {"loss": loss, **self._work.describe(loss, speed, engine.devices)}
        if totals.good_steps:
            facts["gradient_norm"] = totals.gradient_norm / totals.good_steps
        facts |= {
            "learning_rate": engine.learning_rate(),
            "examples_per_second": rows,
            "tokens_per_second": speed,
            "stall_share": stalled,
            "bad_steps": totals.bad_steps,
        }
        if totals.overflows:
            facts["overflows"] = totals.overflows
        for name, value in facts.items():
            curves.scalar(f"train/{name}", value, step)
        self._loss = {"loss": facts.get("loss", math.nan)}
        self._speeds = {"tokens/s": round(speed), "examples/s": rows}
        self.tell(step)
        if now - self._said_at > _LOG_SECONDS or step == self._steps:
            self._said_at = now
            line = _told({**self._loss, **self._speeds, "waiting for data": f"{100 * stalled:.1f} %"})
            print(
                f"train: step {step} of {self._steps}: {line}, {clock(self._left(step))} left",
                file=sys.stderr,
                flush=True,
            )
        self._examples = self._tokens = 0
        self._since, self._waited = now, waited
        return facts

    def _blame(self, totals: Totals) -> str:
        ids = self._work.ids(totals.last_bad_step)
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        return (
            f"the loss or its gradient was no finite number in {totals.bad_in_a_row} steps in a row, the last of them step "
            f"{totals.last_bad_step + 1} (ids {shown}); lower train.learning_rate or use train.precision=float32"
        )


@contextlib.contextmanager
def _profile(config: TrainStage, curves: Curves) -> Iterator[Any]:
    """Gives a function that is told every step, and starts and stops the backend's profiler."""
    from lmworks.models.backend import start_profile, stop_profile

    running = False

    def at(step: int) -> None:
        nonlocal running
        begin, end = config.profile or (-1, -1)
        if step == begin and not running and curves.folder:
            start_profile(str(curves.folder))
            running = True
        elif step >= end and running:
            stop_profile()
            running = False

    try:
        yield at
    finally:
        if running:
            stop_profile()


def _told(facts: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {number(value) if isinstance(value, int | float) else value}" for name, value in facts.items()
    )


def decays(variable: Any) -> bool:
    """Weight decay is for matrices: biases and norms' scales have one dimension or are named so."""
    return len(variable.shape) > 1 and not any(part in variable.path for part in ("bias", "norm"))
