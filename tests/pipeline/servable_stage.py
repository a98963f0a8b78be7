"""A stage that makes a servable of a word, in place of a whole training."""

from pydantic import BaseModel

from lmworks.tfx.artifacts import Servable
from lmworks.tfx.component import Output, component


class Word(BaseModel):
    word: str


@component
def make(config: Word, servable: Output[Servable]) -> None:
    """Writes what looks like a SavedModel."""
    folder = servable.path / "saved_model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(config.word)
    (folder / "variables" / "variables.index").write_text("index")
    (servable.path / "README.md").write_text("# card\n")
    servable.properties |= {"labels": ["no", "yes"]}
