import time
from pathlib import Path

import pytest
from huggingface_hub import constants
from kagglehub.cache import Cache
from kagglehub.handle import parse_model_handle

from lmworks.configs.errors import UserError
from lmworks.configs.paths import beside
from lmworks.models.preset import check_reachable, open_preset
from lmworks.models.preset_kinds import keras_hub_presets
from lmworks.models.tokenizer import open_tokenizer
from lmworks.pipeline.preset import local_preset


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("bert_tiny_en_uncasd", "KerasHub knows no such preset; did you mean bert_tiny_en_uncased?"),
        ("zzz", "zzz: KerasHub knows no such preset"),
        ("kaggle://broken", "kaggle://broken: cannot be loaded: Unexpected Kaggle preset"),
    ],
)
def test_a_preset_that_does_not_exist_is_told_in_one_line(preset, words):
    with pytest.raises(UserError) as told:
        open_tokenizer(preset)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_a_hub_out_of_reach_is_told_at_once(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"hf://org/model: http://127.0.0.1:9 cannot be reached .*local folder"):
        open_preset("hf://org/model", lambda: pytest.fail("the hub's client was asked"))
    assert time.monotonic() - began < 10


def test_a_cached_preset_needs_no_hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = tmp_path / "models--org--model" / "snapshots" / ("0" * 40)
    commit.mkdir(parents=True)
    (commit / "config.json").write_text("{}")
    (tmp_path / "models--org--model" / "refs").mkdir()
    (tmp_path / "models--org--model" / "refs" / "main").write_text("0" * 40)
    assert open_preset("hf://org/model", lambda: "opened") == "opened"


def test_kaggle_out_of_reach_is_told_at_once_unless_the_preset_is_cached(tmp_path, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    url = keras_hub_presets()["bert_tiny_en_uncased"].url
    for preset in ("bert_tiny_en_uncased", url, url.rpartition("/")[0]):
        with pytest.raises(UserError, match=rf"^model\.preset: {preset}: .* cannot be reached .*local folder$"):
            check_reachable(preset)
    with pytest.raises(
        UserError, match=r"^model\.preset: bert_tiny_en_uncased: cannot be downloaded: no connection; check the network"
    ):
        open_tokenizer("bert_tiny_en_uncased")
    handle = parse_model_handle(url.removeprefix("kaggle://"))
    cached = Path(Cache().get_path(handle, "config.json"))
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.touch()
    Cache().mark_as_complete(handle, "config.json")
    for preset in ("bert_tiny_en_uncased", url):
        check_reachable(preset)
    with pytest.raises(UserError, match=r"^model\.preset: kaggle://x: cannot be loaded: [^\n]*$"):
        check_reachable("kaggle://x")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        local_preset(str(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        local_preset(str(tmp_path / "nowhere"))


def test_names_and_urls_go_through_as_they_are():
    assert local_preset("bert_tiny_en_uncased") == "bert_tiny_en_uncased"
    assert local_preset("kaggle://someone/something") == "kaggle://someone/something"
    assert local_preset(None) is None


def test_a_repository_of_the_hub_is_read_as_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository, revision = tmp_path / "models--someone--something", "0123456789" * 4
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    (repository / "snapshots" / revision / "config.json").write_text("{}")
    assert local_preset("hf://someone/something") == str(repository / "snapshots" / revision)
    with pytest.raises(UserError, match=r"model\.preset: hf://someone/nothing: cannot be loaded"):
        local_preset("hf://someone/nothing")


def test_a_folder_beside_the_recipe_is_found_from_elsewhere(tmp_path, monkeypatch):
    folder = tmp_path / "recipes/runs/x"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with beside(str(tmp_path / "recipes/my.yaml")):
        assert local_preset("runs/x") == local_preset("recipes/runs/x") == str(folder)
        with pytest.raises(
            UserError, match=r"runs/y: is no folder in .*/elsewhere and, beside the recipe, in .*/recipes;"
        ):
            local_preset("runs/y")
    with pytest.raises(UserError, match=r"runs/x: is no folder in .*/elsewhere; give"):
        local_preset("runs/x")
