import glob

import pytest

from lmworks.configs.errors import ConfigError
from lmworks.configs.load import validate
from lmworks.configs.paths import beside, expand, find, places
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


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe in `repository/configs` with data beside it, and data in the folder above, that is not its own."""
    configs = tmp_path / "repository/configs"
    (configs / "tiny").mkdir(parents=True)
    for name in ("data.csv", "tiny/a.csv", "../above.csv", "[1].csv"):
        (configs / name).write_text(name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return configs / "my.yaml"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("data.csv", "configs/data.csv"), ("tiny/*.csv", "configs/tiny/*.csv"), ("configs/tiny/a.csv", "configs/tiny/a.csv"),
        ("repository/configs/data.csv", "configs/data.csv"), ("tiny", "configs/tiny"), ("configs", "configs"), ("[1].csv", "configs/[1].csv"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_working_directory_is_looked_up_beside_the_recipe(tmp_path, recipe, path, place):
    assert find(path, "k") == path
    with beside(str(recipe)):
        assert find(path, "k") == str(tmp_path / "repository" / place)
    assert find(path, "k") == path


@pytest.mark.parametrize(
    "path", ["above.csv", "nothing.csv", "/data.csv", "s3://b/data.csv", "https://x/data.csv", "a.csv"]
)
def test_nothing_but_what_is_beside_the_recipe_or_below_is_looked_up(recipe, path):
    with beside(str(recipe)):
        assert find(path, "k") == path


def test_the_working_directory_comes_first(tmp_path, recipe):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "data.csv").write_text("here")
    with beside(str(recipe)):
        assert find("data.csv", "k") == "data.csv"
        assert find("*.csv", "k") == "*.csv"
        assert places("other.csv") == f" in {elsewhere} and, beside the recipe, in {recipe.parent}"
        assert places("configs/b.csv").endswith(f"in {recipe.parent} and {recipe.parent.parent}")
    assert places("other.csv") == f" in {elsewhere}"
    assert places("/other.csv") == ""


def test_brackets_in_the_name_of_the_recipes_folder_are_no_pattern(tmp_path):
    folder = tmp_path / "a [2024]"
    folder.mkdir()
    (folder / "x.csv").touch()
    with beside(str(folder / "my.yaml")):
        assert glob.glob(find("*.csv", "k")) == [str(folder / "x.csv")]


def test_a_key_does_not_depend_on_where_the_command_was_run(tmp_path, recipe, monkeypatch):
    source = Source(path=("configs/tiny/*.csv", "configs/data.csv"))
    folder = Source(path=("configs/tiny",), files=("*.csv", "!b*"))

    class Stage:
        def external(self):
            return (*source.external("ingest.train"), *folder.external("ingest.test"), "configs")

    def digests():
        with beside(str(recipe)):
            return external(Stage())

    elsewhere = digests()
    assert "absent" not in elsewhere.values()
    monkeypatch.chdir(recipe.parent.parent)
    assert digests() == elsewhere == external(Stage())
    monkeypatch.chdir(tmp_path / "elsewhere")
    (recipe.parent / "tiny/a.csv").write_text("other")
    assert digests() != elsewhere


@pytest.mark.parametrize("path", ["", " ", "a\0b", "a\udcff"])
def test_a_path_that_can_be_none_is_refused(path):
    with pytest.raises(ConfigError, match=r"^--root: (is empty; is a variable not set\?|.*no path holds such)"):
        expand(path, "--root")
