"""The same work has the same digest, in whatever root and second it was done."""

import json
import shutil

import pytest
import tensorflow as tf
from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

from lmworks.pipeline.export.saved_model_fingerprint import FILE, derive_uuid
from lmworks.tfx.artifacts import manifest_of
from tests.conftest import lmworks


@pytest.mark.slow  # trains tiny.yaml once more
def test_another_root_takes_what_was_made_of_the_same_model(tiny, tmp_path):
    """A root that lacks the training only: its model is made again, and all that was made from it still fits."""
    root = tmp_path / "runs"
    shutil.copytree(tiny.root / "store", root / "store", ignore=shutil.ignore_patterns("train"))
    done = lmworks("run", "--config=configs/tiny.yaml", f"--root={root}")
    assert done.returncode == 0, done.stderr
    stages = json.loads((root / "tiny" / "run.json").read_text())["stages"]
    assert {name: stage["status"] for name, stage in stages.items()} == {
        "ingest": "cached", "preprocess": "cached", "train": "made", "evaluate": "cached", "export": "cached",
    }  # fmt: skip
    made, before = (manifest_of(folder / "train/model") for folder in (root / "tiny", tiny.folder))
    assert made["files"] == before["files"]


def test_a_fingerprint_is_derived_from_the_saved_model(tmp_path):
    """Twice the same SavedModel, as two processes save it: TensorFlow's identifier differs, ours does not."""
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    tf.saved_model.save(module, str(tmp_path / "1"))
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    content = []
    for identifier in ("1", "2"):
        path = tmp_path / identifier / FILE
        fingerprint = FingerprintDef.FromString(path.read_bytes())
        fingerprint.uuid = identifier
        path.write_bytes(fingerprint.SerializeToString())
        before = tf.saved_model.experimental.read_fingerprint(str(tmp_path / identifier))
        derive_uuid(tmp_path / identifier)
        after = tf.saved_model.experimental.read_fingerprint(str(tmp_path / identifier))
        assert after.singleprint() == before.singleprint()
        content.append(path.read_bytes())
    assert content[0] == content[1]
