"""The table that `make bench` ends with."""

import json
import subprocess
import sys

from tests.benchmarks import table
from tests.conftest import REPOSITORY


def test_rows_of_several_benchmarks_become_one_table(tmp_path, monkeypatch):
    table.add("serve", "not written", 1.0, 2.0, "ms")
    path = tmp_path / "rows.jsonl"
    monkeypatch.setenv(table.ENVIRONMENT, str(path))
    table.add("pretrain", "gpt, Trainer", 8447.0, 4964.0, "tokens/s")
    table.add("serve", "batch 1, pipeline", 2.0, 5.0, "ms a text", less_is_better=True)
    table.add("gpu", "share of the peak", 0.45, None, "")
    assert [json.loads(line)["ratio"] for line in path.read_text().splitlines()] == [8447 / 4964, 2.5, None]
    script = REPOSITORY / "tests/benchmarks/table.py"
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split() for line in told] == [
        ["benchmark", "lmworks", "peer", "lmworks", "is"],
        ["pretrain", "gpt,", "Trainer", "8,447", "4,964", "1.70x", "tokens/s"],
        ["serve", "batch", "1,", "pipeline", "2", "5", "2.50x", "ms", "a", "text"],
        ["gpu", "share", "of", "the", "peak", "0.45"],
    ]


def test_without_rows_it_says_how_to_get_some(monkeypatch):
    monkeypatch.delenv(table.ENVIRONMENT, raising=False)
    script = REPOSITORY / "tests/benchmarks/table.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert table.ENVIRONMENT in done.stderr
