"""The whole preprocess stage beside `datasets.map(batched=True, num_proc=2)` with the same tokenizer: MB of text a second.

lmworks deduplicates, drops leaked rows, records what it drops and writes the tokenizer too. `make bench` runs it.
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
DATA = REPOSITORY / "../shared/data/sst2/train.tsv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", nargs=2, metavar=("EXAMPLES", "TOKENIZER"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.peer:
        _peer(*map(Path, flags.peer))
        return
    library = 'ingest.train={path: "python://stdlib", files: ["**/*.py", "!site-packages/**", "!encodings/**"]}'
    jobs = {
        "BPE, source code": ["configs/pretrain.yaml", library, "preprocess.tokenizer.train.vocabulary_size=8192"],
    }
    if DATA.exists():
        jobs["WordPiece, short rows"] = ["configs/classify.yaml", f"ingest.train={DATA}", "ingest.text=sentence"]
    print(f"{'':24}{'lmworks MB/s':>14}{'datasets MB/s':>14}{'lmworks is':>12}")
    for name, (config, *settings) in jobs.items():
        with tempfile.TemporaryDirectory() as root:
            ours, theirs = [], []
            # The tokenizer is trained once and then given, so that only tokenization is compared.
            _lmworks(config, settings, root, "first")
            tokenizer = Path(root, "first", "preprocess", "sequences", "tokenizer").resolve()
            examples = Path(root, "first", "ingest", "examples").resolve()
            if "pretrain" in config:
                settings = [*settings, f"model={{preset: {_as_preset(tokenizer)}}}", "preprocess.tokenizer={}"]
            for turn in range(flags.rounds):
                ours.append(_lmworks(config, [*settings, f"preprocess.min_characters={turn + 1}"], root, "again"))
                theirs.append(_theirs(examples, tokenizer))
            size = _bytes(examples)
        mine, other = size / 1e6 / median(ours), size / 1e6 / median(theirs)
        print(f"{name:24}{mine:14.2f}{other:14.2f}{mine / other:11.2f}x", flush=True)
        add("tokenization", f"{name}, datasets", mine, other, "MB/s")


def _as_preset(tokenizer: Path) -> Path:
    (tokenizer / "config.json").write_text("{}")
    return tokenizer


def _bytes(examples: Path) -> int:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    text = json.loads((examples / "artifact.json").read_text())["properties"]["text"]
    return sum(
        pc.sum(pc.binary_length(pq.read_table(path, columns=[text])[text])).as_py()
        for path in examples.glob("Split-*/*")
    )


def _lmworks(config: str, settings: list[str], root: str, name: str) -> float:
    command = [sys.executable, "-m", "lmworks.pipeline.main", "run", f"--config={config}", f"--root={root}"]
    command += [f"--run={name}", "--until=preprocess", *(f"--set={one}" for one in settings)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return json.loads(Path(root, name, "run.json").read_text())["stages"]["preprocess"]["seconds"]


def _theirs(examples: Path, tokenizer: Path) -> float:
    command = [sys.executable, __file__, "--peer", str(examples), str(tokenizer)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return float(done.stdout.strip().splitlines()[-1])


def _peer(examples: Path, tokenizer: Path) -> None:
    began = time.perf_counter()
    import datasets
    import transformers

    text = json.loads((examples / "artifact.json").read_text())["properties"]["text"]
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as cache:
        files = sorted(str(path) for path in examples.glob("Split-*/*.parquet"))
        rows = datasets.load_dataset("parquet", data_files=files, cache_dir=cache, split="train")
        found = rows.map(lambda batch: fast(batch[text]), batched=True, num_proc=2, remove_columns=rows.column_names)
        found.save_to_disk(f"{cache}/out")
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
