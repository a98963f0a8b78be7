"""A root or a repository is a folder, or a URL that names something in a store."""

import pytest

from lmworks.configs.errors import ConfigError
from lmworks.configs.schema import check_name
from lmworks.configs.stores import check_root
from lmworks.tfx.metadata import INDEX, Metadata


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ("s3://", "names nothing in the store; is a variable not set. must be s3://BUCKET/FOLDER"), ("gs:///runs", "names nothing"),
        ("hdfs://", "must be hdfs:///FOLDER"), ("file://", "an absolute path"), ("file://runs", "an absolute path"), ("file:///", "must be file:///FOLDER"),
        ("memory://x", "memory:// is of no store"), ("S3://b", "S3:// is of no store"), ("hf://a/b", "of no store"), ("://", "of no store"),
        ("https://x/y", "of no store"), ("simplecache::s3://b", "of no store"), ("s3:/b/c", "a URL is s3://…, with two slashes; .* ./s3:/b/c"),
        ("s3:b", "a URL is s3://"), ("file", "file: is no folder"),
    ],
)  # fmt: skip
def test_what_is_no_place_for_runs_is_refused(tmp_path, monkeypatch, root, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"^--root: .*{problem}"):
        check_root(root)


@pytest.mark.parametrize(
    "root", ["runs", "/r", "./s3:b", "a:b", "s3://b", "s3://b/c", "gs://b/c/", "file:///r", "hdfs:///r", "sftp://h/r"]
)
def test_a_place_for_runs_is_taken(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    check_root(root)


def test_no_run_is_called_like_what_every_root_has(tmp_path):
    Metadata(tmp_path).close()
    own = [path.name for path in tmp_path.iterdir()]
    assert INDEX in own
    for name in (
        *own,
        f"{INDEX}-wal",
        f"{INDEX}-journal",
        "store",
        "State",
        "METADATA.sqlite",
        "x" * 129,
        ".",
        "-x",
        "x ",
        "a/b",
        "a\n",
        "",
    ):
        with pytest.raises(ValueError, match=r"must be|is the name of a file"):
            check_name(name)
    for name in ("x" * 128, "stores", "metadata", "a.b_c-1"):
        assert check_name(name) == name
