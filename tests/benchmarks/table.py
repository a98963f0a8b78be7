"""One table of all benchmarks: each adds its rows to a file, and this prints them. `make bench` runs it last.

LMWORKS_BENCH=rows.jsonl .venv-peers/bin/python tests/benchmarks/serve.py; .venv/bin/python tests/benchmarks/table.py rows.jsonl
"""

import argparse
import json
import os
from pathlib import Path

ENVIRONMENT = "LMWORKS_BENCH"
"""Names the file of rows, one JSON object a line; where it is not set, nothing is written."""


def add(name: str, what: str, lmworks: float, peer: float | None, unit: str, less_is_better: bool = False) -> None:
    """Adds a row.

    Args:
        name: the benchmark.
        what: the case, with the peer's name.
        lmworks: what was measured of lmworks.
        peer: the same of the peer in the same run, None where there is none.
        unit: of both.
        less_is_better: as of seconds; the ratio says how many times better lmworks is either way.
    """
    if path := os.environ.get(ENVIRONMENT):
        ratio = None if peer is None else peer / lmworks if less_is_better else lmworks / peer
        row = {"name": name, "what": what, "lmworks": lmworks, "peer": peer, "ratio": ratio, "unit": unit}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def table(rows: list[dict]) -> str:
    """The rows as aligned text."""
    lines = [("benchmark", "", "lmworks", "peer", "lmworks is", "")]
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}x"
        lines.append((row["name"], row["what"], _shown(row["lmworks"]), _shown(row["peer"]), ratio, row["unit"]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = "<<>>><"
    padded = (
        [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)] for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="?", default=os.environ.get(ENVIRONMENT), help="file of rows")
    flags = parser.parse_args()
    if flags.rows is None or not Path(flags.rows).exists():
        parser.error(f"no rows: name the file, or set {ENVIRONMENT} for the benchmarks and for this")
    print(table([json.loads(line) for line in Path(flags.rows).read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    main()
