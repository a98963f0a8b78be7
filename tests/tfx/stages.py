"""A pipeline of two small stages for tests of the engine: `python -m tests.tfx.stages ROOT RUN WORD [RELEASE]` runs it."""

import shutil
import sys
import time
import types
from pathlib import Path

from pydantic import BaseModel

from lmworks.configs.errors import UserError
from lmworks.tfx import progress
from lmworks.tfx.artifacts import Examples, Logs
from lmworks.tfx.component import Input, Node, Output, component
from lmworks.tfx.local import LocalRunner, StageError


class Word(BaseModel):
    word: str
    release: str = ""
    """A file that the second stage waits for; nothing to wait for where it is empty."""


def load(config: Word) -> None:
    """Stands for a component's imports."""
    if config.word == "unknown":
        raise UserError("the word is unknown; take another")


@component
def write(config: Word, examples: Output[Examples]) -> None:
    """Writes the word."""
    load(config)
    (examples.path / "word.txt").write_text(config.word)


@component
def learn(config: Word, examples: Input[Examples], logs: Output[Logs]) -> bool:
    """Writes live events of two steps, with a wait in between; says yes to all words but `no`.

    Its state outlives it where the word is `lasting`.
    """
    sys.modules["tensorboard.compat.notf"] = types.ModuleType(
        "notf"
    )  # which keeps TensorBoard from importing TensorFlow
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    word = (examples.path / "word.txt").read_text()
    writer = EventFileWriter(str(logs.state))
    for step in (1, 2):
        summary = Summary(value=[Summary.Value(tag=f"train/{word}", simple_value=step)])
        writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.flush()
        progress.report(step, 2, "steps", loss=float("nan"))
        while step == 1 and config.release and not Path(config.release).exists():
            time.sleep(0.02)
    writer.close()
    if word == "bad":
        raise UserError("the word is bad; take another")
    shutil.copytree(logs.state, logs.path, dirs_exist_ok=True)
    if word != "lasting":
        shutil.rmtree(logs.state)
    return word != "no"


@component
def tell(config: Word, logs: Input[Logs], examples: Output[Examples]) -> None:
    """Does what only a yes allows."""
    (examples.path / "word.txt").write_text(config.word)


def nodes(word: str, release: Path | str = "") -> list[Node]:
    """The pipeline."""
    first = Node(write, Word(word=word))
    second = Node(learn, Word(word="", release=str(release)), {"examples": first["examples"]})
    return [first, second, Node(tell, Word(word=""), {"logs": second["logs"]}, when="learn")]


def run(root: Path, name: str, word: str, release: Path | str = "", in_process: bool = True) -> LocalRunner:
    """Runs it to its end."""
    runner = LocalRunner(Path(root), name, {}, in_process)
    runner.execute(nodes(word, release))
    return runner


if __name__ == "__main__":
    from tests.tfx.stages import run as run_under_its_name

    try:
        run_under_its_name(*sys.argv[1:], in_process=False)
    except StageError as error:
        sys.exit(str(error))
