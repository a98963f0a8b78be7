import pytest

from lmworks.configs.errors import ConfigError
from lmworks.configs.load import validate
from lmworks.configs.paths import expand
from lmworks.configs.schema import Source
from lmworks.tfx.fingerprint import external


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~/a.csv", "{home}/a.csv"), ("$DATA/a.csv", "/data/a.csv"), ("${DATA}s/*.csv", "/datas/*.csv"), ("a$.csv", "a$.csv"),
        ("s3://b/$DATA", "s3://b//data"), ("https://x/?q=$NOWHERE", "https://x/?q=$NOWHERE"), ("a~b.csv", "a~b.csv"),
    ],
)  # fmt: skip
def test_paths_are_expanded(tmp_path, path, expanded):
    assert expand(path, "k") == expanded.format(home=tmp_path)


@pytest.mark.parametrize("path", ["$NOWHERE/a.csv", "a/${NOWHERE}.csv", "~nobody_of_this_name/a"])
def test_a_path_that_cannot_be_expanded_is_refused(path):
    with pytest.raises(ConfigError, match=r"^ingest\.train: .*(NOWHERE is not set|no such home)"):
        expand(path, "ingest.train")


def test_a_file_that_is_really_called_so_is_that_file(tmp_path):
    for name in ("$NOWHERE", "~x"):
        (tmp_path / name).touch()
        assert expand(name, "k") == name


def test_brackets_of_an_existing_folder_are_no_pattern(tmp_path):
    folder = tmp_path / "data [2024]"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    source = Source(path=(str(folder),), files=("*.txt",))

    class Stage:
        def external(self):
            return source.external("ingest.train")

    before = external(Stage())
    assert "absent" not in before.values()
    (folder / "a.txt").write_text("b")
    assert external(Stage()) != before


def test_a_config_keeps_what_was_written():
    tree = {"name": "x", "task": "causal_lm", "ingest": {"train": "~/a.txt"}, "model": {"preset": "p"}}
    assert validate(tree, "t").ingest.train.path == ("~/a.txt",)
