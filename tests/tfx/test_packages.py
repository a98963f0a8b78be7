import hashlib
import io
import tarfile
import zipfile

import pytest

from lmworks.configs.errors import UserError
from lmworks.tfx.packages import fetch


@pytest.fixture
def wheelhouse(tmp_path, monkeypatch):
    """A folder that pip takes for its index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    return folder


def archive(members) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tarred:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tarred.addfile(info, io.BytesIO(content))
    return target.getvalue()


def wheel(folder, members) -> str:
    path = folder / "thing-1.0-py3-none-any.whl"
    about = {
        "thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        "thing-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "thing-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in {**members, **about}.items():
            zipped.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_members_of_nested_archives_are_found_and_kept(wheelhouse):
    digest = wheel(wheelhouse, {"thing/data.tar.gz": archive({"a/b.txt": b"hello"})})
    path = fetch("thing==1.0", digest, "thing/data.tar.gz!/a/b.txt")
    assert path.read_text() == "hello"
    (wheelhouse / "thing-1.0-py3-none-any.whl").unlink()
    assert fetch("thing==1.0", digest, "thing/data.tar.gz!/a/b.txt") == path


def test_another_hash_is_refused(wheelhouse):
    wheel(wheelhouse, {"thing/a.txt": "a"})
    with pytest.raises(UserError, match=r"thing==1\.0: pip could not fetch it with sha256 0000"):
        fetch("thing==1.0", "0" * 64, "thing/a.txt")


def test_members_outside_the_archive_are_refused(wheelhouse):
    digest = wheel(wheelhouse, {"thing/bad.tar.gz": archive({"../../evil.txt": b"x"})})
    with pytest.raises(UserError, match=r"bad\.tar\.gz"):
        fetch("thing==1.0", digest, "thing/bad.tar.gz!/x")
    assert not list(wheelhouse.parent.rglob("evil.txt"))
    with pytest.raises(UserError, match="has no member 'thing/none'; it begins with: thing"):
        fetch("thing==1.0", digest, "thing/none")
