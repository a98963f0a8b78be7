"""What is knowable before a run is checked before it: a wrong name must not cost a training.

The schema checks what a config says by itself. Here it is compared with what it names: presets, callbacks, packages, places. All
of it is read from JSON, headers and source text: nothing of it imports TensorFlow or calls what a recipe names.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from lmworks.configs.errors import ConfigError, UserError
from lmworks.configs.paths import expand
from lmworks.configs.schema import Config, Package
from lmworks.models import preset_kinds
from lmworks.models.parameters import positions_from_scratch
from lmworks.models.preset import check_reachable, open_preset
from lmworks.models.preset_checks import check_files, check_for_task, kind_of
from lmworks.pipeline.callback_source import why_no_callback
from lmworks.pipeline.preset import HUB, folder_of
from lmworks.tfx.packages import already_fetched


def check(config: Config, stages: Collection[str], here: bool = True) -> None:
    """Compares a config with what it names, as far as the stages that run need it.

    Args:
        config: Of the run.
        stages: Names of those that run.
        here: Whether the stages run on this machine; else only what every machine has alike is looked at.

    Raises:
        ConfigError: With all that is wrong.
    """
    checks: list[Callable[[], None]] = []
    if "preprocess" in stages and config.model.preset is not None:
        checks.append(partial(_check_preset, config, here, "export" in stages))
    if "train" in stages:
        checks.append(partial(_check_positions, config))
    if "train" in stages and here:
        checks += [partial(_check_callback, entry) for entry in config.train.callbacks]
        checks.append(partial(_check_backend, config))
    if "push" in stages and config.export.push_to and here:
        checks.append(partial(_check_place, config.export.push_to, config.name))
    lines = list(dict.fromkeys(_errors(checks)))
    if lines:
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        raise ConfigError("\n  ".join([f"{count}, seen before the first stage", *lines]))


def _errors(checks: list[Callable[[], None]]) -> Iterator[str]:
    for one in checks:
        try:
            one()
        except UserError as error:
            yield str(error)


def _check_positions(config: Config) -> None:
    """Compares the length of sequences with the positions of a model from scratch; `_check_preset` does it for a preset."""
    length = config.preprocess.sequence_length
    positions = positions_from_scratch(config.task, length)
    if config.model.preset is None and length > positions:
        raise UserError(f"preprocess.sequence_length: {length} is above the model's {positions} positions")


def _check_preset(config: Config, here: bool, exported: bool) -> None:
    preset, task, length = config.model.preset, config.task, config.preprocess.sequence_length
    written = exported and "huggingface" in config.export.formats
    if isinstance(preset, Package):
        folder = already_fetched(preset.package, preset.sha256, preset.member) if here else None
    elif preset is None or (not here and ("/" in preset or "$" in preset or preset.startswith((".", "~")))):
        return
    elif preset.startswith(HUB):
        _check_hub(preset, config, written)
        return
    elif "://" in preset:
        if here:
            check_reachable(preset)
        return
    else:
        folder = folder_of(preset) if here or not Path(preset).exists() else None
        if folder is None and not Path(preset).exists():
            preset_kinds.check_name(preset, task, length)
            if written:
                preset_kinds.check_writable(preset_kinds.keras_hub_presets()[preset].family, task)
            if here:
                check_reachable(preset)
    if folder is not None:
        check_files(folder)
        check_for_task(folder, task, length)
        if written:
            preset_kinds.check_writable(kind_of(folder), task)


def _check_hub(preset: str, config: Config, written: bool) -> None:
    """Looks at the `config.json` of a repository of Hugging Face's hub, alone."""
    from huggingface_hub import hf_hub_download

    name, _, revision = preset.removeprefix(HUB).partition("@")
    path = Path(open_preset(preset, lambda: hf_hub_download(name, "config.json", revision=revision or None)))
    with tempfile.TemporaryDirectory() as scratch:  # the client's cache may hold more of it, or less
        (Path(scratch) / path.name).symlink_to(path.resolve())
        try:
            check_for_task(Path(scratch), config.task, config.preprocess.sequence_length, has_tokenizer=False)
            if written:
                preset_kinds.check_writable(kind_of(Path(scratch)), config.task)
        except UserError as error:
            raise UserError(str(error).replace(scratch, preset)) from None


def _check_callback(entry: str) -> None:
    if why := why_no_callback(entry):
        raise UserError(f"train.callbacks: {entry}: {why}")


def _check_backend(config: Config) -> None:
    if config.train.backend == "jax" and importlib.util.find_spec("jax") is None:
        raise UserError("train.backend: jax is not installed; pip install 'lmworks[jax]', or set it to tensorflow")


def _check_place(push_to: str, name: str) -> None:
    """Sees whether a servable could be written to where it is to be pushed: a folder, or a store whose package is installed."""
    if "://" in push_to and not push_to.startswith("file://"):
        from lmworks.pipeline.push.repository import repository_of

        repository_of(push_to, name)
        return
    folder = Path(expand(push_to, "export.push_to").removeprefix("file://")).absolute() / name
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise UserError(f"export.push_to: {push_to}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"export.push_to: {push_to}: {there} cannot be written to")


def check_examples(config: Config, outputs: dict[str, Path]) -> None:
    """Compares what a config says of columns and classes with the examples, as soon as they are there.

    Args:
        config: Of the run.
        outputs: Folders of what `ingest` has published.

    Raises:
        UserError: With all that is wrong.
    """
    if not config.evaluate.slices and not any("/" in name for name in config.evaluate.thresholds):
        return
    # Imported here: they need NumPy and Arrow.
    import pyarrow.parquet as pq

    from lmworks.pipeline.evaluate.gate import check_names
    from lmworks.pipeline.evaluate.slice_columns import check_slices
    from lmworks.pipeline.tables import files_of
    from lmworks.tfx.artifacts import Examples, read

    if not outputs[
        "examples"
    ].is_dir():  # only the remote root has it, where an earlier run with the same examples ended
        return
    examples = read(Examples, outputs["examples"])
    checks: list[Callable[[], None]] = []
    first = next(iter(files_of(examples, config.evaluate.split)))
    if first.exists():
        checks.append(lambda: check_slices(config.evaluate.slices, pq.read_schema(first).names))
    if config.task == "text_classification":
        checks.append(lambda: check_names(config.evaluate.thresholds, examples.properties["labels"]))
    if lines := list(_errors(checks)):
        raise UserError("\n".join(lines))
