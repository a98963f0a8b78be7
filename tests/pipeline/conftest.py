"""KFP's own local engine, with the command of each container as a process of this machine; Google Cloud on loopback; runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmworks.tfx import cluster
from tests.conftest import REPOSITORY, lmworks
from tests.pipeline.servers import GoogleServer


class Engine:
    """Runs compiled pipelines to their end.

    Attributes:
        root: where the engine puts outputs, `<pipeline>-<time>/<task>/<output>`.
        said: what the processes said, in order.
        kill_when: files by stage; the first process of that stage is killed as soon as one is there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []
        self.kill_when: dict[str, tuple[Path, str]] = {}

    def run(self, compiled: Path, **parameters: str) -> Path:
        """Submits a pipeline with these parameters; the folder of its tasks' outputs."""
        from kfp import components

        before = set(self.root.glob("*"))
        components.load_component_from_file(str(compiled))(**parameters)
        (made,) = set(self.root.glob("*")) - before
        return made

    def start(self, command: list[str], environment: dict[str, str]) -> int:
        """One container; its exit code."""
        assert command[0] == "python"
        log = self.root.with_name(f"{self.root.name}-{len(self.said)}.log")
        with log.open("wb") as said:
            child = subprocess.Popen(
                [sys.executable, *command[1:]],
                cwd=REPOSITORY,
                env={**os.environ, **environment},
                stdout=said,
                stderr=said,
            )
        stage = next(word for word in command if word.startswith("--component=")).rpartition(":")[2]
        if stage in self.kill_when:
            folder, pattern = self.kill_when.pop(stage)
            while child.poll() is None and not list(folder.glob(pattern)):
                time.sleep(0.002)
            child.kill()
        code = child.wait()
        self.said.append(log.read_text(errors="replace"))
        return code


@pytest.fixture
def engine(tmp_path, monkeypatch) -> Engine:
    """KFP's local engine over a folder of this test."""
    from kfp import local
    from kfp.local import status, subprocess_task_handler

    made = Engine(tmp_path / "outputs")

    class Handler:
        def __init__(self, image, full_command, pipeline_root, runner, env_vars=None):
            self.work = full_command, env_vars or {}

        def run(self):
            return status.Status.FAILURE if made.start(*self.work) else status.Status.SUCCESS

    monkeypatch.setattr(subprocess_task_handler, "SubprocessTaskHandler", Handler)
    monkeypatch.setattr(local.config.LocalExecutionConfig, "instance", None)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(made.root))
    return made


@pytest.fixture
def google(monkeypatch, tmp_path):
    made = GoogleServer()
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 0.01)
    key = tmp_path / "key.json"
    key.write_text(json.dumps(made.login()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    for service in ("AIPLATFORM", "LOGGING"):
        monkeypatch.setenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}", f"{made.url}/")
    for name in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_REGION", "CLOUD_ML_REGION", "CLOUDSDK_COMPUTE_REGION"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.stop()


CAUSAL = """
name: stories
task: causal_lm
ingest: {train: %s}
preprocess: {sequence_length: 32, tokenizer: {train: {kind: bpe, vocabulary_size: 300}}}
model: {architecture: gpt2, layers: 2, heads: 2, hidden_dim: 32, intermediate_dim: 64, dropout: 0.0}
train: {epochs: 4, batch_size: 8, learning_rate: 0.01, accumulate: 2, evaluate_every: 10}
evaluate: {slices: [kind], thresholds: {perplexity: {max: 200}}}
"""


@pytest.fixture(scope="session")
def language_runs(tmp_path_factory) -> Path:
    """The root of two runs through all five stages: `stories` of a causal language model, and `gaps` of a masked one."""
    from tests.pipeline.corpora import story  # imports TensorFlow

    folder = tmp_path_factory.mktemp("language")
    rows = ({"text": story(number), "kind": "ab"[number % 2], "id": 7000 + number} for number in range(200))
    (folder / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = CAUSAL % (folder / "stories.jsonl")
    (folder / "causal.yaml").write_text(config)
    config = config.replace("causal_lm", "masked_lm").replace("gpt2", "bert").replace("kind: bpe", "kind: wordpiece")
    config = config.replace("vocabulary_size: 300", "vocabulary_size: 90").replace("name: stories", "name: gaps")
    config = config.replace("evaluate: {", "evaluate: {mask_ratio: 0.25, ")
    (folder / "masked.yaml").write_text(config)
    for name in ("causal", "masked"):
        done = lmworks("run", f"--config={folder}/{name}.yaml", f"--root={folder}/runs")
        assert done.returncode == 0, done.stderr
    return folder / "runs"
