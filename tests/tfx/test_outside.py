"""What is read outside the pipeline: every change is noticed, nothing that did not change is read again."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from lmworks.tfx import file_digests, fingerprint
from lmworks.tfx.artifacts import file_sha256
from lmworks.tfx.file_digests import FileDigests
from lmworks.tfx.local import StageError, _difference
from lmworks.tfx.url_digests import is_unknown, url_digest
from tests.tfx import outside_stages


@pytest.fixture
def fine_clock(monkeypatch):
    """As if files here had been written long ago: a change counts as settled after some milliseconds."""
    monkeypatch.setattr(file_digests, "_GRANULE_NS", 20_000_000)
    return lambda: time.sleep(0.05)


@pytest.fixture
def read(monkeypatch) -> list:
    """Names of the files that are digested."""
    names = []

    def note(path):
        names.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(file_digests, "file_sha256", note)
    return names


def rewrite(path, text):
    """As `rsync -t` and layers of images do: the same size and the same time."""
    status = path.stat()
    draft = path.with_name("draft")
    draft.write_text(text)
    os.utime(draft, ns=(status.st_atime_ns, status.st_mtime_ns))
    draft.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_a_file_is_read_once_for_as_long_as_it_does_not_change(tmp_path, read, fine_clock):
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    fine_clock()
    digests = FileDigests(tmp_path / "memo.sqlite")
    assert digests.of(path) == digests.of(path) == FileDigests(tmp_path / "memo.sqlite").of(path)
    assert read == ["a.csv"]


@pytest.mark.parametrize("how", ["replaced", "in place"])
def test_a_rewritten_file_of_the_same_size_and_time_has_another_digest(tmp_path, fine_clock, how):
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    fine_clock()
    digests = FileDigests()
    before = digests.of(path)
    if how == "replaced":
        rewrite(path, "bbbb")
    else:
        status = path.stat()
        path.write_text("bbbb")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests.of(path) == file_sha256(path) != before


def test_a_young_file_is_read_each_time(tmp_path, read):
    """A later change may carry the same times as the one that was seen."""
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    digests = FileDigests()
    digests.of(path)
    digests.of(path)
    assert len(read) == 2


def test_a_memo_that_cannot_be_used_costs_time_only(tmp_path, fine_clock):
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    (tmp_path / "memo.sqlite").write_bytes(b"no database" * 1000)
    assert FileDigests(tmp_path / "memo.sqlite").of(path) == file_sha256(path)


def test_a_run_notices_a_rewritten_file(tmp_path, fine_clock):
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    fine_clock()
    outside_stages.run(tmp_path / "runs", path)
    assert [result.status for result in outside_stages.run(tmp_path / "runs", path)] == ["cached", "cached"]
    rewrite(path, "bbbb")
    assert [result.status for result in outside_stages.run(tmp_path / "runs", path)] == ["made", "made"]


def test_a_file_that_grows_while_it_is_read_ends_the_stage(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    with pytest.raises(StageError, match=r"^first: \S*a\.csv changed while it was read; nothing was published"):
        outside_stages.run(tmp_path / "runs", path, append="while")
    assert not list((tmp_path / "runs/store/first").iterdir())
    assert [result.why for result in outside_stages.run(tmp_path / "runs", path)] == ["first time"] * 2


def test_a_change_after_the_reading_does_no_harm(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    outside_stages.run(tmp_path / "runs", path, append="after", both=False)
    (result,) = outside_stages.run(tmp_path / "runs", path, append="after", both=False)
    assert result.status == "made"  # with what it is now


def test_stages_of_a_run_read_the_same(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("aaaa")
    with pytest.raises(StageError, match=r"^second: \S*a\.csv changed since an earlier stage of this run read it"):
        outside_stages.run(tmp_path / "runs", path, append="after")


def test_files_behind_a_link_to_a_folder_count(tmp_path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "assets").mkdir()
    (tmp_path / "preset" / "assets").symlink_to(tmp_path / "assets")
    (tmp_path / "assets" / "around").symlink_to(tmp_path)  # a link that leads around in a circle
    config = outside_stages.Reading(path=str(tmp_path / "preset"))
    digests = []
    for text in ("a", "b"):
        (tmp_path / "assets" / "vocabulary.txt").write_text(text)
        digests.append(fingerprint.external(config)[config.path])
    assert digests[0] != digests[1]


class Web:
    """A server on loopback whose file and headers a test changes."""

    def __init__(self):
        self.headers, self.content, self.asked, self.status = {}, b"aaaa", [], 200
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                web.asked.append(self.command)
                self.send_response(web.status)
                for name, value in {"Content-Length": str(len(web.content)), **web.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(web.content)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/data.csv"


@pytest.fixture
def web():
    made = Web()
    yield made
    made.server.shutdown()


HEADERS = {
    "etag": ({"ETag": '"1"'}, {"ETag": '"2"'}, {"HEAD"}),
    "last_modified": (
        {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"Last-Modified": "Wed, 21 Oct 2015 07:28:01 GMT"},
        {"HEAD"},
    ),
    "neither": ({}, {}, {"HEAD", "GET"}),
}


@pytest.mark.parametrize(("before", "after", "asked"), HEADERS.values(), ids=HEADERS)
def test_a_page_of_the_web_counts_by_what_its_server_says(web, before, after, asked):
    web.headers = before
    first = url_digest(web.url)
    assert first == url_digest(web.url)
    assert set(web.asked) == asked
    web.headers, web.content = after, b"bbbb"
    assert url_digest(web.url) != first


@pytest.mark.parametrize("before", ["simplecache", "filecache", "blockcache", "zip://*.csv", "tar://a::simplecache"])
def test_what_is_behind_caches_and_archives_decides(web, before):
    name = f"{before}::{web.url}"
    digests = []
    for content in (b"aaaa", b"aaaa", b"bbbb"):
        web.content = content
        digests.append(fingerprint.external(outside_stages.Reading(path=name))[name])
    assert not any(map(is_unknown, digests))
    assert digests[0] == digests[1] != digests[2]


def test_an_archive_of_this_machine_counts_by_its_content(tmp_path, fine_clock):
    path = tmp_path / "a.zip"
    config = outside_stages.Reading(path=f"zip://a.csv::{path}")
    path.write_text("aaaa")
    before = fingerprint.external(config)
    assert before == fingerprint.external(config)
    rewrite(path, "bbbb")
    assert before != fingerprint.external(config)


def test_the_same_time_and_another_length_is_a_change(web):
    web.headers = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    first = url_digest(web.url)
    web.content = b"aaaaa"
    assert url_digest(web.url) != first


def test_what_cannot_be_found_out_equals_nothing(web):
    web.status = 500
    digests = [url_digest(web.url) for _ in range(2)]
    digests += [url_digest(url) for url in ("nowhere://a", "nowhere://a", "kaggle://broken", "kaggle://broken")]
    assert len(set(digests)) == len(digests)
    assert all(map(is_unknown, digests))
    assert not fingerprint.changed_outside({"a": digests[0]}, {"a": digests[1]})  # nor is it a known change
    assert not fingerprint.changed_outside({"a": digests[0]}, {"a": "1"})


def test_a_killed_stage_goes_on_where_it_cannot_be_found_out_whether_its_source_changed(web, tmp_path, capfd):
    """A finished one is not gone on from: what it read may have been something else."""
    web.status = 500
    with pytest.raises(StageError, match="the machine went away"):
        outside_stages.fail(tmp_path, web.url)
    assert outside_stages.starts(tmp_path, web.url) == 2
    assert "starts anew" not in capfd.readouterr().err
    assert outside_stages.starts(tmp_path, web.url) == 1
    said = f"count: starts anew: whether {web.url} changed since the finished run cannot be found out"
    assert said in capfd.readouterr().err
    web.status = 200
    assert outside_stages.starts(tmp_path, web.url) == 1, "another content, as far as is known"


def test_a_store_that_says_nothing_is_read():
    system = fsspec.filesystem("memory")
    digests = []
    for content in (b"aaaa", b"aaaa", b"bbbb"):
        system.pipe_file("/outside/a.csv", content)
        digests.append(
            (url_digest("memory://outside/a.csv"), url_digest("memory://outside/*.csv"), url_digest("memory://outside"))
        )
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])
    system.rm("/outside", recursive=True)


def test_s3_counts_by_the_checksum_also_below_a_folder(s3):
    place = s3.url.replace("/runs", "/preset")
    digests = []
    for content in (b"aaaa", b"bbbb"):
        s3.pipe_file(f"{place}/assets/vocabulary.txt", content)
        digests.append([url_digest(url) for url in (f"{place}/assets/vocabulary.txt", place, f"{place}/*/*.txt")])
        assert digests[-1] == [url_digest(url) for url in (f"{place}/assets/vocabulary.txt", place, f"{place}/*/*.txt")]
    assert not set(digests[0]) & set(digests[1])
    assert not any(map(is_unknown, digests[0] + digests[1]))


def test_a_version_of_kaggle_is_pinned():
    assert url_digest("kaggle://keras/bert/keras/bert_tiny_en/3") == "version 3"


def test_a_miss_says_that_nothing_could_be_found_out():
    before = {"config": {}, "inputs": {}, "external": {"nowhere://a": url_digest("nowhere://a")}}
    now = {"config": {}, "inputs": {}, "external": {"nowhere://a": url_digest("nowhere://a")}}
    assert _difference(before, now) == "whether it changed cannot be found out: nowhere://a"
    now["external"]["nowhere://a"] = "commit 1"
    assert _difference(before, now) == "changed: nowhere://a"
