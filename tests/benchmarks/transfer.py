"""Files to and from an S3 on loopback (moto, in a process of its own), beside s3fs's own `put` and `get`.

.venv/bin/python tests/benchmarks/transfer.py

Ours tries again, counts bytes, and holds what arrives against its SHA-256; s3fs's own copies.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from table import add

from lmworks.tfx.artifacts import file_sha256
from lmworks.tfx.screen import Screen
from lmworks.tfx.transfer import File, Store

SERVER = (
    "import logging, sys; from moto.server import DomainDispatcherApplication, create_backend_app; "
    "from werkzeug.serving import make_server; logging.getLogger('werkzeug').setLevel(logging.ERROR); "
    "server = make_server('127.0.0.1', 0, DomainDispatcherApplication(create_backend_app), threaded=True); "
    "print(server.server_port, flush=True); server.serve_forever()"
)
CASES = {"4 files of 60 MB": (4, 60_000_000), "300 files of 0.8 MB": (300, 800_000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    flags = parser.parse_args()
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for case, (count, size) in CASES.items():
            rates = [measure(f"{case}-{turn}", count, size, turn % 2 == 0) for turn in range(flags.rounds)]
            for direction in ("upload", "download"):
                ours, theirs = (median(rate[direction][index] for rate in rates) for index in (0, 1))
                print(f"{direction}, {case}: {ours:.0f} MB/s, s3fs {theirs:.0f} MB/s, {ours / theirs:.2f}x")
                add("transfer", f"{direction}, {case}, s3fs", ours, theirs, "MB/s")
    finally:
        server.kill()


def measure(name: str, count: int, size: int, ours_first: bool) -> dict[str, tuple[float, float]]:
    """MB/s of ours and of s3fs, each way."""
    import s3fs

    system = s3fs.S3FileSystem()
    bucket = "".join(letter for letter in name.lower() if letter.isalnum())
    system.mkdir(bucket)
    with tempfile.TemporaryDirectory() as folder:
        source, ours, theirs = (Path(folder, part) for part in ("source", "ours", "theirs"))
        for path in (source, ours, theirs):
            path.mkdir()
        for index in range(count):
            (source / f"{index:04d}").write_bytes(random.Random(index).randbytes(size))
        store = Store(f"s3://{bucket}/ours", Screen())
        files = [File(path, path.name, size) for path in sorted(source.iterdir())]
        back = [File(ours / file.name, file.name, size, file_sha256(file.local)) for file in files]

        def rate(work) -> float:
            began = time.monotonic()
            work()
            return count * size / 1e6 / (time.monotonic() - began)

        ways = {
            "upload": (
                lambda: store.upload(files, "files"),
                lambda: system.put(f"{source}/", f"{bucket}/theirs/", recursive=True),
            ),
            "download": (
                lambda: store.download(back, ours, "files"),
                lambda: system.get(f"{bucket}/theirs/", f"{theirs}/", recursive=True),
            ),
        }
        rates: dict[str, tuple[float, float]] = {}
        for direction, (mine, its) in ways.items():
            if ours_first:
                rates[direction] = (rate(mine), rate(its))
            else:
                rates[direction] = (rate(its), rate(mine))[::-1]
        assert len(list(theirs.iterdir())) == count
    return rates


if __name__ == "__main__":
    main()
