"""Who knows another library's names is told ours."""

import pytest

from lmworks.configs.load import ConfigError, paths_of, validate
from lmworks.configs.other_names import ANSWER_OF, KEY_OF, VALUE_OF, snake_case
from lmworks.configs.schema import Config
from lmworks.pipeline.main import _COMMANDS, _OTHER_COMMANDS

BASE = {"name": "x", "task": "text_classification", "ingest": {"train": "a.csv"}, "model": {"preset": "bert"}}


def errors_of(**changes) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(BASE | changes, "t.yaml")
    return str(caught.value)


def test_what_is_named_is_a_key_and_no_name_elsewhere_is_one_of_ours():
    paths = [*paths_of(Config)]
    ours = {path.rpartition(".")[2] for path in paths}
    assert set(KEY_OF.values()) <= set(paths)
    assert not (KEY_OF.keys() | ANSWER_OF.keys()) & ours
    assert all(name == snake_case(name) for name in (*KEY_OF, *VALUE_OF, *ANSWER_OF))
    assert not _OTHER_COMMANDS.keys() & _COMMANDS.keys()
    assert set(_OTHER_COMMANDS.values()) <= _COMMANDS.keys()


def test_values_elsewhere_are_each_meant_by_some_key():
    schema = str(Config.model_json_schema())
    assert all(f"'{value}'" in schema for value in VALUE_OF.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": 1}, "lr: unknown key; did you mean train.learning_rate?"),
        ({"train": {"lr": 1}}, "train.lr: unknown key; did you mean train.learning_rate?"),
        ({"train": {"learningRate": 1}}, "train.learningRate: unknown key; did you mean train.learning_rate?"),
        ({"train": {"Learning-Rate": 1}}, "train.Learning-Rate: unknown key; did you mean train.learning_rate?"),
        ({"learning_rat": 1}, "learning_rat: unknown key; did you mean train.learning_rate?"),
        ({"train": {"max_length": 1}}, "train.max_length: unknown key; did you mean preprocess.sequence_length?"),
        ({"model": {"preset": "p", "hidden_size": 1}}, "model.hidden_size: unknown key; did you mean model.hidden_dim?"),
        ({"optimizer": "adam"}, "optimizer: unknown key; it is AdamW always"),
        ({"train": {"output_dir": "x"}}, "train.output_dir: unknown key; the flag --root=FOLDER says where"),
        ({"task": "classification"}, "or 'masked_lm'; did you mean text_classification?"),
        ({"train": {"schedule": "cosin"}}, "or 'constant'; did you mean cosine?"),
        ({"train": {"precision": "bf16"}}, "or 'float16'; did you mean bfloat16?"),
        ({"train": {"precision": "int8"}}, "train.precision: 'int8': should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        ({"train": {"monitor": "val_accuracy"}}, "or 'loss'; did you mean accuracy?"),
        ({"export": {"formats": ["hf"]}}, "export.formats.0: 'hf': should be 'saved_model' or 'huggingface'; did you mean huggingface?"),
    ],
)  # fmt: skip
def test_a_name_from_elsewhere_or_nearly_right_is_answered_with_ours(changes, expected):
    assert expected in errors_of(**changes)
