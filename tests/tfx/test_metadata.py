import pytest

from lmworks.tfx.artifacts import Examples, Model, manifest_of, publish, read
from lmworks.tfx.metadata import Metadata


def make(root, name, inputs=()):
    folder = root / "store" / name / "output"
    folder.mkdir(parents=True)
    (folder / "file").write_text(name)
    sources = {f"in{index}": {"artifact": source, "digest": ""} for index, source in enumerate(inputs)}
    record = {
        "id": name,
        "component": name.split("/")[0],
        "key": "k",
        "config": {},
        "inputs": sources,
        "external": {},
        "code": {},
        "versions": {},
        "outputs": ["output"],
        "value": None,
        "finished": 1.0,
    }
    publish(Examples(folder, {"a": 1}), "output", record)
    return folder


@pytest.fixture
def root(tmp_path):
    make(tmp_path, "a/1")
    make(tmp_path, "b/1", ["a/1/output"])
    make(tmp_path, "c/1", ["b/1/output", "a/1/output"])
    return tmp_path


def test_a_lost_or_broken_index_is_rebuilt_from_the_store(root):
    (root / "metadata.sqlite").write_bytes(b"this is no database at all, but it is long enough to be looked at" * 100)
    metadata = Metadata(root)
    assert metadata.upstream("c/1/output") == ["a/1/output", "b/1/output"]
    assert metadata.downstream("a/1/output") == ["b/1/output", "c/1/output"]
    assert [record["id"] for _, record in metadata.executions("b", "k")] == ["b/1"]
    assert not list(metadata.executions("b", "other"))


def test_a_folder_is_an_artifact_only_with_its_manifest_and_all_files(root):
    folder = root / "store" / "a" / "1" / "output"
    assert read(Examples, folder).files == ["file"]
    with pytest.raises(Exception, match="holds Examples, and Model is needed"):
        read(Model, folder)
    (folder / "file").write_text("longer")
    assert manifest_of(folder) is None
    with pytest.raises(Exception, match="is no complete Examples"):
        read(Examples, folder)


def test_same_content_has_the_same_digest(tmp_path):
    one, two = (manifest_of(make(tmp_path, name)) for name in ("a/1", "a/2"))
    assert one["digest"] != two["digest"]  # the file holds another text
    three = manifest_of(make(tmp_path / "elsewhere", "a/1"))
    assert one["digest"] == three["digest"]


def test_an_index_without_the_folder_forgets_it(root):
    metadata = Metadata(root)
    metadata.forget(root / "store" / "b" / "1")
    assert metadata.upstream("c/1/output") == ["a/1/output", "b/1/output"]
    assert not list(metadata.executions("b"))
    assert (root / "store" / "b" / "1").exists()  # a doubt destroys nothing; `gc` clears it
