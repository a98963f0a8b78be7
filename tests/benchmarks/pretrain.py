"""Pretraining of a small GPT and a small BERT: tokens/s of lmworks beside Hugging Face's Trainer (bfloat16, fused AdamW).

Same text (Python's standard library), tokenizer, architecture, batch and cores; the two alternate. `make bench` runs it.
The time of lmworks is its whole train stage, process start, validation and saving included; the Trainer's is `train()` alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from table import add

REPOSITORY = Path(__file__).parents[2]
BATCH, LENGTH, VOCABULARY = 16, 256, 8192
KINDS = {"gpt": ("causal_lm", "gpt2", "bpe"), "bert": ("masked_lm", "bert", "wordpiece")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    flags = parser.parse_args()
    print(f"{'':8}{'lmworks tokens/s':>18}{'Trainer tokens/s':>18}{'lmworks is':>12}")
    for kind in flags.kinds:
        with tempfile.TemporaryDirectory() as root:
            ours, theirs = [], []
            _lmworks(kind, flags.steps, root, "preprocess")
            for turn in range(flags.rounds):
                ours.append(_lmworks(kind, flags.steps, root, "train", seed=turn))
                theirs.append(_trainer(kind, flags.steps, Path(root)))
                print(
                    f"round {turn + 1}: {kind}: {ours[-1]:.1f} s, Trainer {theirs[-1]:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
        tokens = flags.steps * BATCH * LENGTH
        mine, other = tokens / median(ours), tokens / median(theirs)
        print(f"{kind:8}{mine:18.0f}{other:18.0f}{mine / other:11.2f}x", flush=True)
        add("pretrain", f"{kind}, Trainer", mine, other, "tokens/s")


def _lmworks(kind: str, steps: int, root: str, until: str, seed: int = 0) -> float:
    task, architecture, pieces = KINDS[kind]
    settings = [
        f"task={task}",
        f"model.architecture={architecture}",
        f"preprocess.tokenizer.train={{kind: {pieces}, vocabulary_size: {VOCABULARY}}}",
        'ingest.train={path: "python://stdlib", files: ["**/*.py", "!site-packages/**", "!**/test/**", "!**/tests/**", "!encodings/**"]}',
        "ingest.splits={validation: 0.01, test: 0.01}",
        f"preprocess.sequence_length={LENGTH}",
        f"train.batch_size={BATCH}",
        f"train.steps={steps}",
        f"train.seed={seed}",
    ]
    command = [sys.executable, "-m", "lmworks.pipeline.main", "run", "--config=configs/pretrain.yaml"]
    command += [*(f"--set={one}" for one in settings), f"--root={root}", f"--run={kind}", f"--until={until}"]
    _run(command)
    return json.loads(Path(root, kind, "run.json").read_text())["stages"][until]["seconds"]


def _trainer(kind: str, steps: int, root: Path) -> float:
    script = str(Path(__file__).with_name("hf_pretrain.py"))
    sequences = str(root / kind / "preprocess" / "sequences")
    flags = [f"--kind={kind}", f"--sequences={sequences}", f"--steps={steps}", f"--batch={BATCH}", f"--length={LENGTH}"]
    with tempfile.TemporaryDirectory() as output:
        said = _run([sys.executable, script, *flags, f"--output={output}"])
    return float(json.loads(said.strip().splitlines()[-1])["train_s"])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
