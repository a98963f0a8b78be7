"""Time from the start of a process to its first new step, after a kill at 10 % and at 90 % of an epoch of ten million examples.

The position in the data is computed, not read up to, so both are to be the same. The examples are generated; a small model is
trained for a few steps, and its checkpoint is then put at either place, as if that many steps had been done.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file
from table import add

from lmworks.configs.schema import TrainStage
from lmworks.models.wordpiece import train_wordpiece
from lmworks.pipeline.preprocess.classification import TextPairs
from lmworks.tfx.artifacts import MANIFEST, Sequences, publish

BATCH, SHARD = 32, 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sequences = write(root / "sequences", flags.examples)
        steps = flags.examples // BATCH
        state = root / "first" / "state"
        first_step(root / "first", sequences, steps, 10)
        seconds: dict[int, list[float]] = {10: [], 90: []}
        for turn in range(flags.rounds):
            for share in seconds:
                run = root / f"{turn}-{share}"
                at = steps * share // 100
                place(state, run / "state", at)
                seconds[share].append(first_step(run, sequences, steps, at + 1))
                print(
                    f"round {turn + 1}, {share} % of an epoch: {seconds[share][-1]:.1f} s", file=sys.stderr, flush=True
                )
        early, late = median(seconds[10]), median(seconds[90])
        print(f"{flags.examples:,} examples: first step after {early:.1f} s at 10 %, {late:.1f} s at 90 % of an epoch")
        add("resume", f"{flags.examples:,} examples, 10 % and 90 % of an epoch", early, late, "s", less_is_better=True)


def write(folder: Path, examples: int) -> Path:
    """Sequences of 6 to 12 tokens with two labels."""
    pieces = train_wordpiece((f"word{number}" for number in range(2000)), 200, True)
    random = np.random.default_rng(0)
    artifact = Sequences(folder)
    for split, count in (("train", examples), ("validation", 64), ("test", 64)):
        (folder / f"Split-{split}").mkdir(parents=True)
        shards = -(-count // SHARD)
        for shard in range(shards):
            rows = min(SHARD, count - shard * SHARD)
            lengths = random.integers(6, 13, rows).astype(np.int32)
            tokens = random.integers(5, 200, lengths.sum()).astype(np.int32)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            columns = {
                "id": pa.array(np.arange(rows)).cast(pa.string()),
                "row": pa.array(np.arange(rows)),
                "token_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(tokens)),
                "length": pa.array(lengths),
                "first_length": pa.array(lengths),
                "label": pa.array(random.integers(0, 2, rows).astype(np.int32)),
            }
            table = pa.table([columns[name] for name in TextPairs.schema.names], schema=TextPairs.schema)
            path = folder / f"Split-{split}" / f"data-{shard:05d}-of-{shards:05d}.arrow"
            with pa.ipc.new_file(str(path), TextPairs.schema) as file:
                file.write_table(table)
    pieces.save(folder / "tokenizer")
    artifact.properties |= {
        "labels": ["no", "yes"],
        "sequence_length": 16,
        "pad_id": pieces.pad_id,
        "tokenizer": "wordpiece",
    }
    publish(artifact, "sequences", {"id": "generated"})
    assert (folder / MANIFEST).exists()
    return folder


def place(state: Path, target: Path, step: int) -> None:
    """Copies a state and puts its newest checkpoint at a step."""
    shutil.copytree(state, target)
    newest = max(target.glob("train/*/model/checkpoints/step-*/checkpoint.json")).parent
    record = json.loads((newest / "checkpoint.json").read_text())
    name = f"step-{step:08d}"
    record["files"] = {path.replace(newest.name, name): digest for path, digest in record["files"].items()}
    record |= {"progress": step, "facts": {**record["facts"], "events": {}}}
    assert load_file(newest / "state.safetensors")
    (newest / "checkpoint.json").write_text(json.dumps(record))
    newest.rename(newest.with_name(name))


def first_step(folder: Path, sequences: Path, steps: int, step: int) -> float:
    """Seconds from the start of the stage's process to the checkpoint of a step; the process is then killed."""
    model = {"architecture": "bert", "layers": 1, "heads": 1, "hidden_dim": 16, "intermediate_dim": 16, "dropout": 0.0}
    every = {"steps": steps, "batch_size": BATCH, "checkpoint_every": 1, "evaluate_every": 10 * steps}
    config = TrainStage.model_validate({"task": "text_classification", "model": model, "precision": "float32", **every})
    given = {
        "inputs": {
            "parameterValues": {"config": config.model_dump_json()},
            "artifacts": {"sequences": {"artifacts": [{"uri": str(sequences)}]}},
        },
        "outputs": {"artifacts": {one: {"artifacts": [{"uri": str(folder / one)}]} for one in ("model", "logs")}},
    }
    command = [sys.executable, "-m", "lmworks.tfx.launch", "--component=lmworks.pipeline.train.component:train"]
    command += [f"--executor_input={json.dumps(given)}", f"--state={folder / 'state'}"]
    folder.mkdir(exist_ok=True)
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    checkpoints = "state/train/*/model/checkpoints/step-*/checkpoint.json"
    while not any(int(path.parent.name.removeprefix("step-")) >= step for path in folder.glob(checkpoints)):
        if process.poll() is not None:
            sys.exit((folder / "log").read_text()[-3000:])
        time.sleep(0.01)
    seconds = time.monotonic() - began
    process.kill()
    process.wait()
    return seconds


if __name__ == "__main__":
    main()
