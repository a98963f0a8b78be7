"""The tests of training again, on the JAX backend: a process has one Keras backend, so they run in one of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def test_training_on_jax(task_sequences):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "LMWORKS_TEST_SEQUENCES": str(Path(task_sequences["causal_lm"]).parent),
    }
    command = [sys.executable, "-m", "pytest", "-q", "tests/pipeline/test_train.py", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-8000:])
    assert done.returncode == 0, done.stdout[-8000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 20
