"""A pipeline with files of some size, for tests of roots at a URL: `python -m tests.tfx.remote_stages URL RUN FILES KILOBYTES WORD`."""

import random
import sys

from pydantic import BaseModel

from lmworks.configs.errors import UserError
from lmworks.tfx.artifacts import Examples, Logs, Model
from lmworks.tfx.component import Input, Node, Output, component
from lmworks.tfx.local import LocalRunner
from lmworks.tfx.remote import RemoteRoot


class Size(BaseModel):
    files: int
    kilobytes: int


class Word(BaseModel):
    word: str

    def resume_identity(self) -> dict:
        """Any word goes on where another one stopped."""
        return {}


@component
def fill(config: Size, examples: Output[Examples]) -> None:
    """Writes files that differ."""
    for index in range(config.files):
        (examples.path / f"part-{index:03d}.bin").write_bytes(random.Random(index).randbytes(config.kilobytes * 1000))
    examples.properties |= {"summary": f"{config.files} files"}


@component
def learn(config: Word, examples: Input[Examples], model: Output[Model], logs: Output[Logs]) -> None:
    """Counts its tries in its state, and fails where the word is `fail`."""
    size = sum((examples.path / name).stat().st_size for name in examples.files)
    tries = model.state / "tries"
    count = int(tries.read_text()) + 1 if tries.exists() else 1
    model.state.mkdir(parents=True, exist_ok=True)
    tries.write_text(str(count))
    (model.state / "record.json").write_text("{}")
    if config.word == "fail":
        raise UserError("the word is fail; take another")
    (model.path / "size.txt").write_text(str(size))
    (logs.path / "events.out.tfevents.1").write_text("")
    model.properties |= {"tries": count, "summary": f"{size} bytes, try {count}"}
    for path in model.state.iterdir():
        path.unlink()
    model.state.rmdir()


def run(url: str, name: str = "one", files: int = 3, kilobytes: int = 1, word: str = "yes") -> LocalRunner:
    """Runs it to its end; the runner."""
    first = Node(fill, Size(files=int(files), kilobytes=int(kilobytes)))
    remote = RemoteRoot(url)
    remote.store.check()
    runner = LocalRunner(remote.mirror, name, {}, in_process=True, remote=remote)
    runner.results = runner.execute([first, Node(learn, Word(word=word), {"examples": first["examples"]})])
    return runner


if __name__ == "__main__":
    from tests.tfx.remote_stages import run as run_under_its_name

    run_under_its_name(*sys.argv[1:])
