"""Small corpora of generated stories, tokenised by the pipeline's own stages."""

import json

import numpy as np

from lmworks.configs.schema import IngestStage, PreprocessStage
from lmworks.pipeline.ingest.component import ingest
from lmworks.pipeline.preprocess.component import preprocess
from lmworks.tfx.artifacts import Examples, Sequences, Statistics, publish, read


def story(number: int) -> str:
    random = np.random.default_rng(number)
    words = ["fox", "dog", "house", "river", "stone", "runs", "sleeps", "over", "under", "quickly"]
    return " ".join(random.choice(words, 5 + number % 37)) + f".\nThe end of story {number}, don't you know?\n"


def artifact(kind, folder, name="x"):
    folder.mkdir(parents=True)
    return kind(folder)


def corpus(tmp_path, task, length, texts=None, **settings):
    """Examples and sequences of generated stories."""
    file = tmp_path / "stories.jsonl"
    tmp_path.mkdir(exist_ok=True)
    texts = [story(number) for number in range(150)] if texts is None else texts
    rows = ({"text": text, "kind": "ab"[index % 2]} for index, text in enumerate(texts))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = artifact(Examples, tmp_path / "examples")
    config = IngestStage.model_validate({"task": task, "train": str(file)})
    ingest(config=config, examples=examples, statistics=artifact(Statistics, tmp_path / "statistics"))
    publish(examples, "examples", {"id": "test/examples"})
    examples = read(Examples, examples.path)
    sequences = artifact(Sequences, tmp_path / "sequences")
    kind, size = ("wordpiece", 90) if task == "masked_lm" else ("bpe", 300)
    settings = {"tokenizer": {"train": {"kind": kind, "vocabulary_size": size}}} | settings
    config = PreprocessStage.model_validate({"task": task, "sequence_length": length, **settings})
    preprocess(config=config, examples=examples, sequences=sequences)
    publish(sequences, "sequences", {"id": "test/sequences"})
    return examples, read(Sequences, sequences.path)
