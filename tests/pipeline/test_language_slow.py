"""Whole language models and large documents: make test-slow, and make test-long for the one that takes a quarter of an hour."""

import itertools
import json
import math
import resource
from collections import Counter

import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY, lmworks

SHAKESPEARE = REPOSITORY.parent / "shared" / "data" / "tinyshakespeare" / "input.txt"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    root = tmp_path_factory.mktemp("library")
    done = lmworks("run", "--config=configs/gpt_stdlib.yaml", f"--root={root}")
    assert done.returncode == 0, done.stderr
    return root / "gpt_stdlib"


def _texts(run, split):
    manifest = json.loads((run / "ingest/examples/artifact.json").read_text())
    names = [one["path"] for one in manifest["files"] if one["path"].startswith(f"Split-{split}/")]
    texts = itertools.chain(*(pq.read_table(run / "ingest/examples" / name)["text"].to_pylist() for name in names))
    return [text.encode() for text in texts]


def _five_gram_bits_per_byte(training, test):
    """Kneser and Ney's interpolated smoothing, here with one discount for all orders, over bytes (Chen and Goodman 1999)."""
    contexts = [Counter() for _ in range(5)]
    grams = [Counter() for _ in range(5)]
    for order in range(5):
        for text in training:
            padded = b"\0" * 4 + text
            for end in range(4, len(padded)):
                grams[order][padded[end - order : end + 1]] += 1
        for gram, count in grams[order].items():
            contexts[order][gram[:-1]] += count
    kinds = [Counter(gram[:-1] for gram in grams[order]) for order in range(5)]
    bits = size = 0.0
    for text in test:
        padded = b"\0" * 4 + text
        for end in range(4, len(padded)):
            chance = 1 / 256
            for order in range(5):
                gram = padded[end - order : end + 1]
                total = contexts[order][gram[:-1]]
                if not total:
                    break
                discount = 0.75
                kept = max(grams[order][gram] - discount, 0.0) / total
                chance = kept + discount * kinds[order][gram[:-1]] / total * chance
            bits -= math.log2(chance)
            size += 1
    return bits / size


@pytest.mark.long
def test_gpt_stdlib_is_below_its_gate_and_better_than_a_five_gram_model(library):
    told = json.loads((library / "evaluate/evaluation/metrics.json").read_text())["metrics"]["bits_per_byte"]["value"]
    assert told < 1.9
    assert json.loads((library / "run.json").read_text())["stages"]["train"]["seconds"] < 30 * 60
    training, test = _texts(library, "train"), _texts(library, "test")
    five_gram = _five_gram_bits_per_byte(training, test)
    print(f"five-gram {five_gram:.3f}, ours {told:.3f} bits per byte")
    assert told < five_gram


@pytest.mark.slow
def test_a_document_of_100_megabytes_in_one_line(tmp_path):
    words = b" ".join(b"word%d" % (number * 7919 % 50_000) for number in range(11_000_000))[:100_000_000]
    (tmp_path / "line.txt").write_bytes(words)
    for part in range(2):
        (tmp_path / f"other{part}.txt").write_bytes(words[part * 200_000 : (part + 1) * 200_000])
    settings = [
        f"ingest.train={tmp_path}/line.txt", f"ingest.validation={tmp_path}/other0.txt", f"ingest.test={tmp_path}/other1.txt",
        "preprocess.tokenizer.train.vocabulary_size=1000",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = lmworks(
        "run", "--config=configs/pretrain.yaml", f"--root={tmp_path}/runs", "--until=preprocess",
        *(f"--set={one}" for one in settings),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "runs/pretrain/preprocess/sequences/artifact.json").read_text())
    assert manifest["properties"]["bytes"] > 100_000_000
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"peak {peak / 2**20:.1f} GiB (before {before / 2**20:.1f})")
    assert peak < 8 * 2**20


@pytest.mark.slow
@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="../shared/data is absent")
def test_tinyshakespeare_at_nanogpts_small_size(tmp_path):
    """nanoGPT publishes a validation loss of 1.88 nats per character for these sizes, steps and split."""
    source = f"path: {SHAKESPEARE}, byte_range:"
    settings = [
        f"ingest.train={{{source} [0, 1003854]}}",
        f"ingest.validation={{{source} [1003854, 1115394]}}",
        f"ingest.test={{{source} [1003854, 1115394]}}",
        "preprocess={sequence_length: 64, decontaminate: false, tokenizer: {train: {kind: bpe, vocabulary_size: 257}}}",
        "model={architecture: gpt2, layers: 4, heads: 4, hidden_dim: 128, intermediate_dim: 512, dropout: 0.0}",
        "train={steps: 2000, batch_size: 12, learning_rate: 0.001, schedule: cosine, warmup_ratio: 0.05, weight_decay: 0.1}",
        "evaluate.stride=64",
    ]
    done = lmworks(
        "run",
        "--config=configs/pretrain.yaml",
        f"--root={tmp_path}",
        "--until=evaluate",
        *(f"--set={one}" for one in settings),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "pretrain/evaluate/evaluation/metrics.json").read_text())["metrics"]
    assert told["loss"]["value"] < 1.93
