"""Secrets in the URLs of sources: used for reading, and nowhere else."""

from __future__ import annotations

import base64
import sqlite3
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from lmworks.configs.schema import IngestStage
from lmworks.configs.url_secrets import masked, masked_url, names_object, password_advice
from lmworks.pipeline.export.text_files import format_of
from lmworks.pipeline.main import main
from lmworks.tfx.fingerprint import external
from lmworks.tfx.url_digests import is_unknown, url_digest
from tests.conftest import lmworks
from tests.pipeline.test_public_inputs import CLASSIFY, CSV, JSONL

SECRETS = ("S3CRET-first", "S3CRET-second", "S3CRET-wrong", "S3CRET-password")
ACCEPTED = SECRETS[:2]
KNOWN = "--set=model.preset=bert_tiny_en_uncased"
"""A preset that KerasHub has, for what looks at all stages."""


class Handler(BaseHTTPRequestHandler):
    """Gives /NAME.csv to who has the token or the password; some rows of it are bad."""

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def _answer(self, body: bool) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        login = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        allowed = query.get("token", [""])[0] in ACCEPTED or login == f"me:{SECRETS[3]}"
        content = {
            "/train.csv": CSV + ",pos\n", "/other.csv": CSV.replace("film", "book"), "/data.jsonl": JSONL,
            "/by_id.csv": CSV + f"row {query.get('id')},pos\n", "/broken.csv.gz": "\x1f\x8b\x08",
        }.get(parts.path)  # fmt: skip
        self.send_response(403 if not allowed else 404 if content is None else 200)
        written = (content or "").encode("latin-1") if allowed else b"no"
        self.send_header("Content-Length", str(len(written)))
        self.send_header("ETag", f'"version 1 of {len(written)}"')
        self.end_headers()
        if body:
            self.wfile.write(written)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def host():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def recipe(tmp_path, monkeypatch, host):
    """Writes a recipe whose training source is this URL."""
    monkeypatch.chdir(tmp_path)

    def write(url: str, other: str = "other.csv", **keys: object) -> list[str]:
        Path("other.csv").write_text(CSV.replace("film", "book"))
        other = str(tmp_path / other) if "://" not in other else other
        ingest = {"train": url, "validation": other, "test": other, "max_rejects": 0.5, **keys}
        Path("recipe.yaml").write_text(yaml.safe_dump(CLASSIFY | {"ingest": ingest}))
        return ["run", f"--config={tmp_path}/recipe.yaml", "--until=ingest", f"--root={tmp_path}/root"]

    return write


def no_secret_below(root: Path, said: str) -> None:
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret.encode() in content], path
        assert not [secret for secret in SECRETS if secret in path.name]
    assert not [secret for secret in SECRETS if secret in said], said


def test_a_token_stands_nowhere_and_another_one_reads_the_same(recipe, host, capfd, tmp_path):
    url = f"http://{host}/train.csv?token={{}}"
    for token, status in ((SECRETS[0], "made"), (SECRETS[1], "cached")):
        command = recipe(url.format(token), f"http://{host}/other.csv?token={token}")
        done = lmworks(*command, f"--set=ingest.train={url.format(token)}", "--set=ingest.label=label")
        assert done.returncode == 0, done.stderr
        record = yaml.safe_load(Path("root/x/run.json").read_text())
        assert record["stages"]["ingest"]["status"] == status
        assert record["config"]["ingest"]["train"]["path"] == [f"http://{host}/train.csv?…"]
        assert record["overrides"][0] == f"--set=ingest.train=http://{host}/train.csv?…".removeprefix("--set=")
        assert "1 refused" in record["stages"]["ingest"]["summary"]
        Path("recipe.yaml").unlink()
        no_secret_below(Path("root"), done.stdout + done.stderr)
    with sqlite3.connect("root/metadata.sqlite") as index:
        assert index.execute("SELECT count(*) FROM executions").fetchone() == (1,)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("train.csv?token=S3CRET-wrong", "ingest.train: "),
        ("nothing.csv?token=S3CRET-first", "no such file"),
        ("broken.csv.gz?token=S3CRET-first", "broken.csv.gz?…: the compressed file is truncated"),
        ("*.csv?token=S3CRET-first", "ingest.train: "),
        ("nothing.csv?acl=/*&token=S3CRET-first", "no such file"),
    ],
)
def test_errors_do_not_say_it(recipe, host, path, words, tmp_path, capfd):
    assert main([*recipe(f"http://{host}/{path}"), "--in_process"]) == 1
    said = capfd.readouterr()
    assert words in said.err
    Path("recipe.yaml").unlink()
    no_secret_below(tmp_path, said.out + said.err)


def test_a_star_in_a_signature_makes_no_glob(recipe, host, capfd):
    assert main([*recipe(f"http://{host}/train.csv?acl=/*~token&token=S3CRET-first"), "--in_process"]) == 0
    assert "rows" in capfd.readouterr().err
    url = f"http://{host}/train.csv?acl=/*&hmac=1&token={{}}"
    digests = [url_digest(url.format(token)) for token in SECRETS[:2]]
    assert digests[0] == digests[1]
    assert not is_unknown(digests[0])


def test_the_log_of_a_failed_stage_does_not_say_it(recipe, host, tmp_path):
    command = recipe(f"http://{host}/train.csv?token=S3CRET-wrong")
    done = lmworks(*command, "--verbosity=1")
    assert done.returncode == 1
    assert f"http://{host}/train.csv?…" in Path("root/x/ingest/log.txt").read_text()
    Path("recipe.yaml").unlink()
    no_secret_below(tmp_path, done.stdout + done.stderr)


def test_a_login_comes_from_a_variable(recipe, host, tmp_path, monkeypatch, capfd):
    assert main([*recipe(f"http://me:S3CRET-password@{host}/train.csv"), "--in_process"]) == 2
    said = capfd.readouterr().err
    assert "ingest.train: path: a URL must not hold a user's password or a key; name a variable" in said
    assert "http://$LOGIN@HOST/…" in said
    monkeypatch.setenv("LOGIN", "me:S3CRET-password")
    assert main([*recipe(f"http://$LOGIN@{host}/train.csv"), "--in_process"]) == 0
    said += "".join(capfd.readouterr())
    monkeypatch.setenv("QUERY", "token=S3CRET-first")
    assert main([*recipe(f"http://{host}/data.jsonl?$QUERY"), "--in_process"]) == 0
    said += "".join(capfd.readouterr())
    no_secret_below(tmp_path, said)


def test_queries_that_choose_what_is_read_are_told_apart_by_it(host):
    def digests(*urls: str) -> dict[str, str]:
        return external(IngestStage.model_validate({"task": "causal_lm", "format": "text", "train": list(urls)}))

    at = f"http://{host}/by_id.csv?token={{}}&id={{}}"
    one, other = digests(at.format(SECRETS[0], 1)), digests(at.format(SECRETS[1], 2))
    assert one.keys() == other.keys() == {f"http://{host}/by_id.csv?…"}
    assert one != other  # though their ETags are the same
    assert one == digests(at.format(SECRETS[1], 1))
    both = digests(at.format(SECRETS[0], 1), at.format(SECRETS[0], 2))
    assert list(both) == [f"http://{host}/by_id.csv?…", f"http://{host}/by_id.csv?… (2)"]
    assert len(set(both.values())) == 2


@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_pipeline_holds_no_token(target, recipe, capfd):
    recipe("https://host/train.csv?X-Amz-Signature=S3CRET-first&X-Amz-Date=1")
    arguments = ["compile", "--config=recipe.yaml", f"--target={target}", "--output=pipeline.yaml", KNOWN]
    assert main(arguments) == 2
    said = capfd.readouterr().err
    assert "ingest.train.path: https://host/train.csv?…: its query holds X-Amz-Signature, X-Amz-Date" in said
    assert {"kubeflow": "https://HOST/FILE?$QUERY", "vertex": "gs://"}[target] in said
    assert "S3CRET" not in said
    assert not Path("pipeline.yaml").exists()


def test_a_pipeline_keeps_what_it_needs(recipe):
    recipe("https://host/train.csv?$QUERY", other="https://host/other?format=csv&raw=1", format="csv")
    assert main(["compile", "--config=recipe.yaml", "--target=kubeflow", "--output=pipeline.yaml", KNOWN]) == 0
    written = Path("pipeline.yaml").read_text()
    assert "https://host/train.csv?$QUERY" in written
    assert "https://host/other?format=csv&raw=1" in written


@pytest.mark.parametrize(
    ("url", "shown", "words"),
    [
        ("https://h/a.csv?sig=S3", "https://h/a.csv?…", None),
        ("https://h/a.csv#access_token=S3", "https://h/a.csv?…", None),
        ("https://h/a.csv?$QUERY", "https://h/a.csv?$QUERY", None),
        ("https://me:S3@h/a.csv", "https://…@h/a.csv", "https://$LOGIN@HOST"),
        ("https://me:S/3@h/a.csv", "https://…@h/a.csv", "https://$LOGIN@HOST"),
        ("https://S3@h:80/a.csv", "https://…@h:80/a.csv", "https://$LOGIN@HOST"),
        ("https://$ME:${WORD}@h/a.csv", "https://$ME:${WORD}@h/a.csv", None),
        ("s3://KEY:S/3@b/k", "s3://…@b/k", "AWS_SECRET_ACCESS_KEY"),
        ("s3://b/k?AWSAccessKeyId=S3", "s3://b/k?…", None),
        ("gs://a:S3@b/k", "gs://…@b/k", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("hf://me:S3@datasets/o/n", "hf://…@datasets/o/n", "HF_TOKEN"),
        ("sftp://me:S3@h/a.csv", "sftp://…@h/a.csv", "sftp://$LOGIN@HOST"),
        ("simplecache::https://me:S3@h/a?sig=S3", "simplecache::https://…@h/a?…", "https://$LOGIN@HOST"),
        ("sftp://me@h/a.csv", "sftp://me@h/a.csv", None),
        ("http://h:8080/a@b.csv", "http://h:8080/a@b.csv", None),
        ("http://[2001:db8::1]:80/a@b", "http://[2001:db8::1]:80/a@b", None),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a", None),
        ("hf://datasets/o/n@main/a.csv", "hf://datasets/o/n@main/a.csv", None),
        ("github://org:repo@main/a.csv", "github://org:repo@main/a.csv", None),
        ("zip://a.csv::hf://datasets/o/n@main/a.zip", "zip://a.csv::hf://datasets/o/n@main/a.zip", None),
        ("data/what?/a=b.csv", "data/what?/a=b.csv", None),
        ("http://[::1]:8766/x.csv?token=S3", "http://[::1]:8766/x.csv?…", None),
        ("http://me:S3@[::1]:8766/x.csv", "http://…@[::1]:8766/x.csv", "http://$LOGIN@HOST"),
        ("https://h/a?sig=a::S3", "https://h/a?…", None),
        ("https://me:S<\"3@h/a.csv", "https://…@h/a.csv", "https://$LOGIN@HOST"),
        ("https://S3:@h/a.csv", "https://…@h/a.csv", "https://$LOGIN@HOST"),
        ('https://h/a<b?sig="S3', "https://h/a<b?…", None),
        (f"https://aws:S3{'x' * 3000}@h/a.csv", "https://…@h/a.csv", "https://$LOGIN@HOST"),
        (f"https://S3{'x' * 3000}@h/a.csv", "https://…@h/a.csv", "https://$LOGIN@HOST"),
        (f"https://h/{'x' * 3000}?sig=S3", f"https://h/{'x' * 3000}?…", None),
        ("http://h:1/#/runs/details/run-1", "http://h:1/#/runs/details/run-1", None),
    ],
)  # fmt: skip
def test_what_is_masked_and_what_is_refused(url, shown, words):
    assert masked_url(url) == masked_url(shown) == shown
    assert (
        masked(f"ingest: '{url}': no such file ({url}), {url}.")
        == f"ingest: '{shown}': no such file ({shown}), {shown}."
    )
    advice = password_advice(url)
    assert (advice is None) == (words is None)
    assert advice is None or (words in advice and "S3@" not in advice)


def test_a_space_ends_no_query_of_a_url():
    assert masked_url("https://h/a?sig=S 3") == "https://h/a?…"
    assert masked_url("ingest.train=https://me:S 3@h/a?sig=S 3") == "ingest.train=https://…@h/a?…"


@pytest.mark.parametrize("text", ["http://", "http://a:b", "http://@h:", "https://a?", "a::b", "s3://a?#"])
def test_long_texts_are_masked_in_proportional_time(text):
    def seconds(count: int) -> float:
        begin = time.process_time()
        masked(text * count)
        masked(f"{text * count}@")
        masked_url(f"http://{text * count}@")
        return time.process_time() - begin

    assert seconds(100_000) < 5  # quadratic time took 28 s for one of them


def test_only_what_signs_a_request_leaves_its_object_the_same():
    assert not names_object("https://h/a?X-Amz-Signature=1&X-Amz-Date=2&token=3&sig=4&se=5&Expires=6&Key-Pair-Id=7")
    for query in ("id=3", "key=a.csv", "token=1&page=2", "versionId=4"):
        assert names_object(f"https://h/a?{query}")


@pytest.mark.parametrize(
    ("flags", "words", "status"),
    [
        (["--input=http://{host}/data.jsonl?sig=1&token=S3CRET-wrong"], "data.jsonl?…: cannot be reached: 403", 1),
        (["--input=http://{host}/nothing.jsonl?token=S3CRET-first"], "no such file", 1),
        (["--input=http://127.0.0.1:1/data.jsonl?token=S3CRET-first"], "data.jsonl?…: cannot be reached: ", 1),
        (["--input=http://{host}/*.jsonl?token=S3CRET-first"], "names several files; name one", 2),
        (["--input=http://me:S3CRET-password@{host}/data.jsonl"], "--input: a URL must not hold a user's password", 2),
    ],
)  # fmt: skip
def test_predict_reads_urls_as_ingest_does(flags, words, status, tiny, host, tmp_path, capfd):
    flags = [flag.format(host=host) for flag in flags]
    assert main(["predict", f"--servable={tiny.folder}", f"--output={tmp_path}/out.jsonl", *flags]) == status
    said = capfd.readouterr().err
    assert words in said
    assert "S3CRET" not in said


def test_the_format_of_a_url_is_that_of_its_path():
    assert format_of("https://h/x.csv?sig=a.b/c.parquet", "--input") == "csv"
    assert format_of("simplecache::https://h/x.jsonl.gz#part", "--input") == "jsonl"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model.preset=hf://me:S3CRET-first@owner/name", "HF_TOKEN"),
        ("model.preset=hf://owner/name?token=S3CRET-first", "model: preset: must not hold a `?`"),
        ("export.push_to=s3://KEY:S3CRET-first@bucket/models", "AWS_SECRET_ACCESS_KEY"),
        ("platform.kubeflow.pipeline_root=s3://a:S3CRET-first@bucket", "AWS_SECRET_ACCESS_KEY"),
        ("platform.train.state=gs://a:S3CRET-first@bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("ingest.test={path: 'http://a:S3CRET-first@b/c', x: 1}", "ingest.test.x: unknown key"),
        ("http://a:S3CRET-first@b=", "must be KEY=VALUE"),
        (f"http://a:S3CRET-first{'x' * 3000}@b=", "must be KEY=VALUE"),
        (f"platform.kubeflow.host=https://me:S3CRET-first{'x' * 3000}@b", "KFP_EXISTING_TOKEN"),
        ("platform.kubeflow.host=https://me:S 3CRET-first@b", "KFP_EXISTING_TOKEN"),
    ],
)  # fmt: skip
def test_other_keys_with_secrets_are_refused_without_saying_them(key, words, recipe, capfd):
    assert main([*recipe("other.csv"), f"--set={key}"]) == 2
    said = capfd.readouterr().err
    assert words in said or "http://a" in key
    assert "3CRET" not in said
