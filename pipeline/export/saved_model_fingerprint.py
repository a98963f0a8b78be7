"""A SavedModel's `fingerprint.pb` with the same bytes for the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path

FILE = "fingerprint.pb"


def derive_uuid(saved_model: Path) -> None:
    """Replaces the random identifier in the fingerprint by one that is computed from the hashes beside it.

    TensorFlow draws the identifier when it saves; the other fields are hashes of the graph, its signatures and the
    checkpoint (tensorflow/core/protobuf/fingerprint.proto).

    Args:
        saved_model: the SavedModel's folder.
    """
    from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

    path = saved_model / FILE
    fingerprint = FingerprintDef.FromString(path.read_bytes())
    fingerprint.ClearField("uuid")
    content = fingerprint.SerializeToString(deterministic=True)
    # As TensorFlow writes it: 128 bits, in decimal digits.
    fingerprint.uuid = str(int.from_bytes(hashlib.sha256(content).digest()[:16], "big"))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
