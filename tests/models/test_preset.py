import pytest

from lmworks.configs.errors import UserError
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


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json"):
        local_preset(str(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        local_preset(str(tmp_path / "nowhere"))


def test_names_and_urls_go_through_as_they_are():
    assert local_preset("bert_tiny_en_uncased") == "bert_tiny_en_uncased"
    assert local_preset("hf://someone/something") == "hf://someone/something"
    assert local_preset(None) is None
