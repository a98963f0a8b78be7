"""Repositories of a hub that a test makes, over HTTP on loopback: the commit decides, and is what is fetched."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from lmworks.configs.schema import PreprocessStage
from lmworks.pipeline.preset import local_preset
from lmworks.tfx import fingerprint
from lmworks.tfx.outside import watching
from lmworks.tfx.url_digests import is_unknown, url_digest


class Hub:
    """Answers as the hub does: what is in a repository, and its files.

    Attributes:
        revisions: commits by name.
        commits: files of each commit, by name.
    """

    def __init__(self):
        self.revisions, self.commits = {}, {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body, headers, status = hub.answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def commit(self, name: str, **files: str) -> str:
        """A new commit under a branch's name."""
        commit = hashlib.sha1(json.dumps(files).encode()).hexdigest()
        self.revisions[name] = self.revisions[commit] = commit
        self.commits[commit] = {file.replace("_json", ".json"): text.encode() for file, text in files.items()}
        return commit

    def answer(self, path: str):
        missing = (b"{}", {"X-Error-Code": "RevisionNotFound"}, 404)
        if path in ("", "/"):
            return b"hub", {}, 200
        if found := re.match(r"/api/(models|datasets)/(?:org/)?name(?:/revision/([^/?]+))?(?:\?|$)", path):
            commit = self.revisions.get(found[2] or "main")
            if commit is None:
                return missing
            siblings = [{"rfilename": name} for name in self.commits[commit]]
            return json.dumps({"id": "org/name", "sha": commit, "siblings": siblings}).encode(), {}, 200
        if found := re.match(r"/api/models/(?:org/)?name/tree/([^/?]+)", path):
            files = self.commits.get(self.revisions.get(found[1]), {})
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in files.items()
            ]
            return json.dumps(entries).encode(), {}, 200
        if found := re.match(r"/(?:org/)?name/resolve/([^/]+)/(.+)", path):
            commit = self.revisions.get(found[1])
            body = self.commits.get(commit, {}).get(found[2].partition("?")[0])
            if body is None:
                return missing
            etag = hashlib.sha256(body).hexdigest()
            return body, {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Content-Type": "application/json"}, 200
        return missing


@pytest.fixture
def hub(monkeypatch, tmp_path):
    made = Hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield made
    made.server.shutdown()


def outside(preset: str) -> str:
    """What is recorded of a preset."""
    config = PreprocessStage.model_validate({"task": "text_classification", "preset": preset})
    return fingerprint.external(config)[preset]


def test_the_commit_decides_and_is_recorded(hub):
    first = hub.commit("main", config_json="{}")
    assert outside("hf://org/name") == f"commit {first}"
    second = hub.commit("main", config_json='{"layers": 2}')
    assert outside("hf://org/name") == outside("hf://org/name@main") == f"commit {second}"
    assert outside(f"hf://org/name@{first}") == f"commit {first}"
    assert url_digest("hf://datasets/org/name/train.csv") == f"commit {second}"
    assert is_unknown(outside("hf://org/name@nowhere"))
    assert is_unknown(outside("hf://org/other"))


def test_the_revision_is_what_is_fetched(hub):
    hub.commit("v1", config_json='{"version": 1}')
    hub.commit("main", config_json='{"version": 2}')
    for preset, version in (("hf://org/name@v1", 1), ("hf://org/name", 2)):
        folder = Path(local_preset(preset))
        assert json.loads((folder / "config.json").read_text()) == {"version": version}
        assert outside(preset) == f"commit {folder.name}"


def test_a_model_without_a_namespace_counts_by_its_commit_too(hub, monkeypatch):
    first, second = hub.commit("v1", config_json="{}"), hub.commit("main", config_json='{"layers": 2}')
    assert outside("hf://name") == f"commit {second}"
    assert outside("hf://name@v1") == outside(f"hf://name@{first}") == f"commit {first}"
    assert Path(local_preset("hf://name")).name == second
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert outside("hf://name") == f"commit {second}"


def test_the_commit_of_the_key_is_fetched_also_where_the_branch_has_moved_on(hub):
    first = hub.commit("main", config_json='{"version": 1}')
    second = hub.commit("main", config_json='{"version": 2}')
    with watching(lambda: None, {"hf://org/name": f"commit {first}"}):
        assert Path(local_preset("hf://org/name")).name == first
    assert Path(local_preset("hf://org/name")).name == second


def test_what_the_cache_holds_counts_while_the_hub_is_away(hub, monkeypatch):
    commit = hub.commit("main", config_json="{}")
    local_preset("hf://org/name")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert outside("hf://org/name") == outside(f"hf://org/name@{commit}") == f"commit {commit}"
    assert is_unknown(outside("hf://org/other"))
