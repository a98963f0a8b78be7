"""Archives made to do harm: nothing beside the target changes, nothing is left of them, and one line says why."""

from __future__ import annotations

import bz2
import gzip
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lmworks.configs.errors import UserError
from lmworks.pipeline.ingest import streams
from lmworks.tfx import archives
from lmworks.tfx.archives import unpack

EVIL = b"evil"


def header(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def tar(*headers: tarfile.TarInfo, mode: str = "w") -> bytes:
    """A tar archive whose files hold `EVIL`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for each in headers:
            each.size = len(EVIL) if each.isreg() else 0
            archive.addfile(each, io.BytesIO(EVIL))
    return buffer.getvalue()


def pax(value: str, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A tar archive with a comment in an extended header."""
    member = header("a")
    content = tarfile.TarInfo._create_pax_generic_header({"comment": value}, kind, "utf-8")  # type: ignore[attr-defined]
    return content + tar(member)


def negative() -> bytes:
    """A tar archive whose member ends before it begins, where the next one is looked for."""
    content = bytearray(header("a").tobuf(tarfile.GNU_FORMAT))
    content[124:136] = (-512).to_bytes(12, "big", signed=True)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content) + bytes(1024)


def long_links(outside: str) -> bytes:
    """The archive of CVE-2025-4517: links so long that `os.path.realpath` gives up resolving, and the filter with it."""
    part, steps = "d" * 247, "abcdefghijklmnop"
    headers, path = [], ""
    for step in steps:
        headers += [header(path + part, tarfile.DIRTYPE), header(path + step, tarfile.SYMTYPE, part)]
        path += f"{part}/"
    long = "/".join(steps) + "/" + "l" * 254
    headers.append(header(long, tarfile.SYMTYPE, "../" * len(steps)))
    headers.append(header("escape", tarfile.SYMTYPE, f"{long}/{outside}"))
    headers += [header("flag", tarfile.LNKTYPE, "escape/victim"), header("flag")]
    return tar(*headers)


def zipped(*names: str, mode: int = 0o100644, encrypted: bool = False, method: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, EVIL)
    content = bytearray(buffer.getvalue())
    for signature, flags, methods in ((b"PK\x03\x04", 6, 8), (b"PK\x01\x02", 8, 10)):
        place = content.index(signature)
        content[place + flags] |= encrypted
        content[place + methods] |= method
    return bytes(content)


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a chain of long links": ("a.tar", lambda: long_links("../../beside"), "a link or a device"),
    "a link": ("a.tar", lambda: tar(header("to", tarfile.SYMTYPE, "../beside"), header("to/victim")), "'to' is a link"),
    "a link that stays inside": ("a.tar", lambda: tar(header("a"), header("b", tarfile.SYMTYPE, "a")), "'b' is a link"),
    "a hard link": ("a.tar", lambda: tar(header("to", tarfile.LNKTYPE, "../beside/victim"), header("to")), "'to' is a link"),
    "a device": ("a.tar", lambda: tar(header("null", tarfile.CHRTYPE)), "a device"),
    "a named pipe": ("a.tar", lambda: tar(header("pipe", tarfile.FIFOTYPE)), "a device"),
    "a path upwards": ("a.tar", lambda: tar(header("x/../../beside/victim")), "points outside"),
    "an absolute path": ("a.tar", lambda: tar(header("/tmp/lmworks-victim")), "points outside"),
    "a file twice": ("a.tar.gz", lambda: tar(header("a"), header("./a"), mode="w:gz"), r"'\./a' stands in it more than once"),
    "a file that is a folder too": ("a.tar", lambda: tar(header("a"), header("a/b")), "'a/b'"),
    "a cut tar.xz": ("a.tar.xz", lambda: tar(*map(header, "ab"), mode="w:xz")[:-60], r"a\.tar\.xz: cannot be unpacked"),
    "a tar cut between two files": ("a.tar", lambda: tar(*map(header, "ab"))[:1024], "its end is missing"),
    "a cut tar.gz": ("a.tgz", lambda: tar(*map(header, "ab"), mode="w:gz")[:-20], r"a\.tgz: cannot be unpacked"),
    "a name of 2 MiB": ("a.tgz", lambda: gzip.compress(tar(header("a" * (2 << 20)))), "a name or another header has 2,097,15"),
    "a pax header of 2 MiB": ("a.tgz", lambda: gzip.compress(pax("a" * (2 << 20))), "a name or another header has 2,097,"),
    "a global header of 2 MiB": ("a.tar", lambda: pax("a" * (2 << 20), tarfile.XGLTYPE), "a name or another header has"),
    "a negative size": ("a.tar", lambda: negative(), "the size of a member is negative"),
    "no tar at all": ("a.tar.gz", lambda: b"text" * 999, r"gz: cannot be unpacked: it is no tar archive, or is damaged at"),
    "no tar": ("a.tar.bz2", lambda: b"BZh91AY&SY" + b"x" * 99, r"a\.tar\.bz2: cannot be unpacked"),
    "a link in a zip": ("a.zip", lambda: zipped("to", mode=0o120777), "'to' is a link"),
    "a path upwards in a zip": ("a.zip", lambda: zipped("../beside/victim"), "points outside"),
    "an absolute path in a zip": ("a.whl", lambda: zipped("/tmp/lmworks-victim"), "points outside"),
    "a drive in a zip": ("a.zip", lambda: zipped("C:\\victim"), "points outside"),
    "a file twice in a zip": ("a.zip", lambda: zipped("a", "a"), "'a' stands in it more than once"),
    "an encrypted zip": ("a.zip", lambda: zipped("a", encrypted=True), r"member 'a' cannot be unpacked: .*password"),
    "an unknown compression": ("a.zip", lambda: zipped("a", method=97), r"member 'a' cannot be unpacked: .*method"),
    "a damaged zip": ("a.zip", lambda: zipped("a").replace(EVIL, b"EVIL"), r"cannot be unpacked.*'a': Bad CRC"),
    "another kind of file": ("a.rar", lambda: b"Rar!", r"a\.rar: is no archive"),
}  # fmt: skip


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is below a folder, by path; directories hold None."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() and not path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def target(tmp_path):
    """A folder to unpack into, in one that lies beside a file to protect."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "victim").write_bytes(b"precious")
    (tmp_path / "home").mkdir()
    return tmp_path / "home" / "content"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("attack", HOSTILE)
def test_nothing_outside_changes_and_one_line_says_why(attack, target):
    name, make, message = HOSTILE[attack]
    archive = target.with_name(name)
    archive.write_bytes(make())
    before = tree(target.parents[1])
    with pytest.raises(UserError, match=message) as caught:
        unpack(archive, target)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)
    assert tree(target.parents[1]) == before
    assert not Path("/tmp/lmworks-victim").exists()


@pytest.mark.skipif(sys.version_info >= (3, 11, 13), reason="tarfile of later versions is mended")
def test_the_chain_of_long_links_leaves_the_target_of_tarfile_itself(target):
    scratch = target / "scratch"
    scratch.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(long_links("../../../beside"))) as archive:
        archive.extractall(scratch, filter="data")
    assert (target.parents[1] / "beside" / "victim").read_bytes() == EVIL


@pytest.mark.parametrize(
    "pack", [lambda content: zip_of(content), lambda content: tar_of(content)], ids=["zip", "tar.gz"]
)
def test_a_bomb_is_refused_before_it_fills_the_disk(pack, target, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL", 1 << 20)
    archive = target.with_name("a.zip" if pack(b"")[:2] == b"PK" else "a.tar.gz")
    archive.write_bytes(pack(bytes(8 << 20)))
    with pytest.raises(UserError, match=r"refused at its member 'zeros': it unpacks to more than 200 times its size"):
        unpack(archive, target)
    archive.write_bytes(pack(bytes(1 << 19)))
    unpack(archive, target)
    assert (target / "zeros").stat().st_size == 1 << 19


def test_a_bomb_as_a_source_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_SMALL", 1 << 20)
    path = tmp_path / "a.csv.bz2"
    path.write_bytes(bz2.compress(bytes(8 << 20)))
    with streams.open_content(str(path)) as content:
        assert len(content.stream.read(1 << 20)) == 1 << 20
        with pytest.raises(streams.ForeignContentError, match=r"1,000 times its size"):
            content.stream.read()


def zip_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", content)
    return buffer.getvalue()


def tar_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(header("zeros", size=len(content)), io.BytesIO(content))
    return gzip.compress(buffer.getvalue())
