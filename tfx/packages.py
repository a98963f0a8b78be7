"""Files inside Python packages: fetched by pip, hash-checked before anything of them is read, never installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lmworks.configs.errors import UserError
from lmworks.tfx import process
from lmworks.tfx.archives import SUFFIXES, unpack
from lmworks.tfx.artifacts import file_sha256
from lmworks.tfx.personal_cache import personal_cache


def cache_folder() -> Path:
    """Where fetched packages are kept: `$LMWORKS_CACHE`, else `$XDG_CACHE_HOME/lmworks`, else `~/.cache/lmworks`."""
    if own := os.environ.get("LMWORKS_CACHE"):
        return Path(own)
    return personal_cache()


def fetch(package: str, sha256: str, member: str) -> Path:
    """Local path of a file or folder inside a package.

    Args:
        package: `NAME==VERSION`.
        sha256: of the wheel or sdist.
        member: path inside it; `!/` steps into an archive inside the archive; empty for the whole.

    Raises:
        UserError: no such package, another hash, no such member, no pip.
    """
    home = cache_folder() / "packages" / sha256
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        archive = _download(package, sha256, home)
        folder = _unpacked(archive, home / "content")
        outer, *inner = member.split("!/")
        for nested in inner:
            inside = _inside(folder, outer, package)
            folder = _unpacked(inside, inside.with_name(inside.name + ".content"))
            outer = nested
        return _inside(folder, outer, package)


def already_fetched(package: str, sha256: str, member: str) -> Path | None:
    """Local path of what `fetch` has unpacked before; None where it would have to work for it."""
    folder = cache_folder() / "packages" / sha256 / "content"
    return _inside(folder, member, package) if folder.is_dir() and "!/" not in member else None


def _inside(folder: Path, member: str, package: str) -> Path:
    path = folder / member
    if not path.resolve().is_relative_to(folder.resolve()) or not path.exists():
        have = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8])
        raise UserError(f"{package}: has no member {member!r}; it begins with: {have}")
    return path


def _download(package: str, sha256: str, home: Path) -> Path:
    for path in home.iterdir():
        if path.name.endswith(SUFFIXES) and path.is_file() and file_sha256(path) == sha256:
            return path
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        requirement = Path(scratch, "requirements.txt")
        requirement.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
        target = Path(scratch, "files")
        command = process.python("pip", "download", "--quiet", "--no-deps", "--require-hashes")
        command += ["--disable-pip-version-check", "--dest", str(target), "--requirement", str(requirement)]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=False, stdin=subprocess.DEVNULL
        )
        found = sorted(target.iterdir()) if target.is_dir() else []
        if done.returncode or not found:
            if "No module named pip" in done.stderr:
                raise UserError(f"{package}: this environment has no pip to fetch it with; run: python -m ensurepip")
            said = [line for line in done.stderr.splitlines() if "ERROR" in line or "Got" in line] or [
                done.stderr.strip()
            ]
            raise UserError(f"{package}: pip could not fetch it with sha256 {sha256}: {' '.join(said)[:400]}")
        if file_sha256(found[0]) != sha256:
            raise UserError(f"{package}: {found[0].name} has another sha256 than {sha256}")
        return Path(shutil.move(found[0], home / found[0].name))


def _unpacked(archive: Path, target: Path) -> Path:
    """The folder of an archive's content, which is unpacked once."""
    if not target.is_dir():
        unpack(archive, target)
    return target
