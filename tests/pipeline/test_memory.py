"""A model from scratch that cannot be trained in this machine's memory is refused before any work is done."""

from pathlib import Path

import pytest

from lmworks.configs.errors import ConfigError
from lmworks.configs.load import load
from lmworks.pipeline import memory
from lmworks.pipeline.main import main
from tests.conftest import REPOSITORY

TINY = f"--config={REPOSITORY}/configs/tiny.yaml"
HUGE = "--set=model={architecture: bert, hidden_dim: 65536, layers: 1000, intermediate_dim: 65536}"


def test_a_model_that_is_too_large_is_refused_with_its_estimate(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", TINY, HUGE]) == 2
    message = capsys.readouterr().err
    assert "model: layers 1,000, hidden_dim 65,536" in message
    assert "25,774,795.8 million parameters" in message
    assert "this machine has" in message
    assert not any(tmp_path.iterdir())


def test_what_does_not_train_here_may_be_as_large_as_it_likes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["run", TINY, HUGE, "--until=ingest"]) == 0
    )  # its process too finds the rows, which lie beside the recipe
    pytest.importorskip("kfp")
    assert main(["compile", TINY, HUGE, "--target=kubeflow", "--output=a.yaml"]) == 0
    assert Path("a.yaml").exists(), capsys.readouterr().err


def test_a_model_that_fits_is_taken():
    # Nearly all parameters are the embeddings of 2^20 tokens, and half of the memory is filled.
    width = min(memory.memory() // 16 // 2**20 // 2, 65536)
    sizes = f"model={{architecture: bert, hidden_dim: {width}, layers: 1, heads: 1, intermediate_dim: 1}}"
    memory.check_memory(
        load(f"{REPOSITORY}/configs/tiny.yaml", [sizes, f"preprocess.tokenizer.train.vocabulary_size={2**20}"])
    )


def test_a_batch_that_is_too_large_is_refused_with_its_estimate(monkeypatch):
    monkeypatch.setattr(memory, "_ACCELERATORS", ())
    recipe = f"{REPOSITORY}/configs/gpt_stdlib.yaml"
    sizes = ["model.layers=100", "train.batch_size=65536", "preprocess.sequence_length=4096"]
    with pytest.raises(ConfigError, match=r"train\.batch_size 65,536 of 4,096 tokens each needs [\d,]+\.\d GB or more"):
        memory.check_memory(load(recipe, sizes))
    memory.check_memory(load(recipe, ["model.layers=100", "train.batch_size=auto"]))
