"""The whole job, raw files to an evaluated model: lmworks beside Hugging Face's Trainer, out of the box and tuned.

Same rows (SST-2), weights (MiniLM-L6), epochs, batch size and cores; the three alternate. `make bench` runs it.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from table import add

from lmworks.configs.load import load
from lmworks.pipeline.preset import local_preset

REPOSITORY = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=REPOSITORY / "../shared/data/sst2/train.tsv", help="SST-2's train.tsv"
    )
    parser.add_argument("--rows", type=int, default=8000, help="rows to train on")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--skip_plain", action="store_true", help="leave the Trainer out of the box out: it is slow")
    flags = parser.parse_args()
    if not flags.data.exists():
        sys.exit(f"finetune: {flags.data} does not exist; give SST-2's train.tsv with --data")
    preset = local_preset(load(REPOSITORY / "configs/sentiment.yaml").model.preset)
    with tempfile.TemporaryDirectory() as folder:
        splits = _cut(flags.data, flags.rows, Path(folder))
        jobs = {"lmworks": lambda: _lmworks(splits, flags.epochs, preset)}
        jobs["Trainer, tuned"] = lambda: _trainer(splits, flags.epochs, preset, "--tuned")
        if not flags.skip_plain:
            jobs["Trainer, out of the box"] = lambda: _trainer(splits, flags.epochs, preset)
        seen: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        for turn in range(flags.rounds):
            for name, job in jobs.items():
                began = time.perf_counter()
                seen[name].append({**job(), "whole_s": time.perf_counter() - began})
                print(f"round {turn + 1}: {name}: {seen[name][-1]}", file=sys.stderr, flush=True)
    work = flags.rows * flags.epochs
    ours = median(one["whole_s"] for one in seen["lmworks"])
    ours_training = median(one["train_s"] for one in seen["lmworks"])
    print(f"{'':26}{'examples/s':>12}{'lmworks is':>12}{'training':>12}{'lmworks is':>12}{'accuracy':>10}")
    for name, runs in seen.items():
        whole, training = median(one["whole_s"] for one in runs), median(one["train_s"] for one in runs)
        accuracy = median(one["accuracy"] for one in runs)
        print(
            f"{name:26}{work / whole:12.1f}{whole / ours:11.2f}x{work / training:12.1f}"
            f"{training / ours_training:11.2f}x{accuracy:10.4f}"
        )
        if name != "lmworks":
            add("finetune", f"whole job, {name}", work / ours, work / whole, "examples/s")
            add("finetune", f"train stage, {name}", work / ours_training, work / training, "examples/s")


def _cut(source: Path, rows: int, folder: Path) -> dict[str, Path]:
    with source.open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    bounds = {"train": (0, rows), "validation": (rows, rows + 500), "test": (rows + 500, rows + 2000)}
    splits = {}
    for split, (begin, end) in bounds.items():
        splits[split] = folder / f"{split}.csv"
        with splits[split].open("w", encoding="utf-8", newline="") as target:
            writer = csv.DictWriter(target, ["sentence", "label"])
            writer.writeheader()
            writer.writerows({name: row[name] for name in ("sentence", "label")} for row in table[begin:end])
    return splits


def _lmworks(splits: dict[str, Path], epochs: float, preset: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as root:
        settings = [f"ingest.{split}={path}" for split, path in splits.items()]
        settings += ["ingest.text=sentence", "ingest.label=label", f"model.preset={preset}", f"train.epochs={epochs:g}"]
        settings += ["preprocess.sequence_length=96", "train.batch_size=32", "train.learning_rate=2e-4"]
        command = [sys.executable, "-m", "lmworks.pipeline.main", "run", "--config=configs/classify.yaml"]
        command += [f"--set={one}" for one in settings] + [f"--root={root}", "--run=bench", "--until=evaluate"]
        _run(command)
        run = json.loads((Path(root) / "bench/run.json").read_text())
        metrics = json.loads((Path(root) / "bench/evaluate/evaluation/metrics.json").read_text())
        return {"accuracy": metrics["metrics"]["accuracy"]["value"], "train_s": run["stages"]["train"]["seconds"]}


def _trainer(splits: dict[str, Path], epochs: float, preset: str, *options: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as output:
        files = [f"--{split}={path}" for split, path in splits.items()]
        script = str(Path(__file__).with_name("hf_trainer.py"))
        said = _run(
            [sys.executable, script, f"--preset={preset}", *files, f"--epochs={epochs}", f"--output={output}", *options]
        )
        return json.loads(said.strip().splitlines()[-1])


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
