"""Room on the disk for the weights, asked for before they are written."""

from __future__ import annotations

import errno
import math
import os
import shutil
from pathlib import Path

import keras

_FLOAT32 = 4
_HEADERS = 8192
"""Bytes that an HDF5 file spends on a variable beside its values; more than were seen."""


def check_room(folder: Path, model: keras.Model) -> None:
    """Checks that a folder's disk has room for a model's weights.

    HDF5 does not outlive a disk that becomes full: it crashes when the half-written file is closed.

    Args:
        folder: exists.
        model: whose weights will be written there.

    Raises:
        OSError: the disk has not.
    """
    size = sum(_FLOAT32 * math.prod(weight.shape) + _HEADERS for weight in model.weights)
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < size:  # some mounted buckets do not know
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
