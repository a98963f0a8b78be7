"""Stages that read a file outside the pipeline, which may change meanwhile."""

from pathlib import Path

from pydantic import BaseModel

from lmworks.tfx import outside
from lmworks.tfx.artifacts import Examples, Model, Statistics, read
from lmworks.tfx.component import Input, Node, Output, component
from lmworks.tfx.local import LocalRunner, Result


class Reading(BaseModel):
    path: str
    append: str = ""
    """What another program adds to the file: `while` it is read, or `after` it was read and the stage still works."""

    def external(self) -> tuple[str, ...]:
        return (self.path,)


def add(path: str) -> None:
    """Another program's line."""
    with open(path, "a") as file:
        file.write("one more\n")


@component
def first(config: Reading, examples: Output[Examples]) -> None:
    """Copies the file."""
    (examples.path / "text.txt").write_text(Path(config.path).read_text())
    if config.append == "while":
        add(config.path)
    if config.append == "after":
        outside.has_been_read()
        add(config.path)


@component
def second(config: Reading, examples: Input[Examples], statistics: Output[Statistics]) -> None:
    """Reads the file too."""
    (statistics.path / "size.txt").write_text(str(len(Path(config.path).read_text())))


class Counting(Reading):
    fails: bool = False

    def resume_identity(self) -> dict[str, str]:
        return {"path": self.path}


@component
def count(config: Counting, model: Output[Model]) -> None:
    """Counts in its state how often it was started, and keeps that for later ones."""
    model.state.mkdir(parents=True, exist_ok=True)
    starts = model.state / "starts"
    starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
    if config.fails:
        raise OSError("the machine went away")
    model.properties["starts"] = len(starts.read_text())


def starts(root: Path, url: str) -> int:
    """Runs the stage that counts; how often it was started since its state was empty."""
    (result,) = LocalRunner(root, "one", {}, in_process=True).execute([Node(count, Counting(path=url))])
    return read(Model, result.folder / "model").properties["starts"]


def fail(root: Path, url: str) -> None:
    """Runs the stage that counts, and it fails."""
    LocalRunner(root, "one", {}, in_process=True).execute([Node(count, Counting(path=url, fails=True))])


def run(root: Path, path: Path, append: str = "", both: bool = True) -> list[Result]:
    """Runs both stages, or the first."""
    begin = Node(first, Reading(path=str(path), append=append))
    end = Node(second, Reading(path=str(path)), {"examples": begin["examples"]})
    return LocalRunner(root, "one", {}, in_process=True).execute([begin, end] if both else [begin])
