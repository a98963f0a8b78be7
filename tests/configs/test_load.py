import os
import threading

import pytest
import yaml

from lmworks.configs.load import ConfigError, load, override, validate
from lmworks.configs.schema import Config

BASE = {"name": "x", "task": "text_classification", "ingest": {"train": "a.csv"}, "model": {"preset": "bert"}}


def errors_of(**changes) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(BASE | changes, "t.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trian": {}}, "trian: unknown key; did you mean train?"),
        ({"train": {"profile": [6, 3]}}, "train.profile: [6, 3]: must be [from, to] with from below to"),
        ({"train": {"epoch": 1}}, "train.epoch: unknown key; did you mean train.epochs?"),
        ({"train": {"batch_size": "many"}}, "train.batch_size: 'many': must be a whole number above 0, or auto"),
        ({"train": {"batch_size": 0}}, "train.batch_size: 0: must be a whole number above 0, or auto"),
        ({"task": "poetry"}, "task: 'poetry': should be 'text_classification'"),
        ({"name": "store"}, "name: 'store': must be"),
        ({"ingest": {"train": "a", 3: "x"}}, "ingest.3: unknown key; known here: conversation"),
        ({"ingest": {"train": "a", True: "x"}}, "ingest.True: unknown key; known here: conversation"),
        (
            {"ingest": {"train": {"path": "a", "format": "jsonl", "byte_range": [0, 9]}}, "task": "causal_lm"},
            "ingest.train: byte_range belongs to text, and format is jsonl: leave it out",
        ),
        (
            {"ingest": {"train": {"path": "a", "format": "json", "header": False}}},
            "ingest.train: header belongs to csv and tsv, and format is json",
        ),
        (
            {"ingest": {"train": {"path": "a", "columns": ["a"]}, "format": "parquet"}},
            "ingest: train.columns belongs to csv and tsv, and format is parquet",
        ),
        (
            {"ingest": {"train": "a", "format": "parquet", "encoding": "latin-1"}},
            "ingest: encoding belongs to csv, tsv, jsonl, json and text, and format is parquet: leave it out",
        ),
        (
            {"ingest": {"train": "a", "test": {"path": "b", "format": "json"}, "format": "jsonl", "delimiter": ";"}},
            "ingest: delimiter belongs to csv and tsv, and format is json and jsonl",
        ),
        ({"ingest": {"train": "a", "text_b": "text"}}, "ingest.text_b: 'text' is the column of ingest.text already"),
        ({"ingest": {"train": "a", "label": "text"}}, "ingest.label: 'text' is the column of ingest.text already"),
        ({"ingest": {"train": "a", "text_b": "label"}}, "ingest.label: 'label' is the column of ingest.text_b already"),
        ({"ingest": {"train": "a", "splits": {"test": 0}}}, "ingest: splits.test: 0 leaves the split empty"),
        (
            {"ingest": {"train": "a", "separator": "a\n"}, "task": "causal_lm"},
            "ingest.separator: 'a\\n': must be one line",
        ),
        (
            {"ingest": {"train": {"path": "s3://b/c", "files": "*"}}},
            "ingest.train: files names patterns of files in folders of",
        ),
        ({"ingest": {}}, "ingest.train: is missing"),
        ({"ingest": {"train": {"pth": "a"}}}, "ingest.train.pth: unknown key; did you mean ingest.train.path?"),
        ({"ingest": {"train": {"path": "a", "package": "b==1"}}}, "ingest.train: needs either path or package"),
        ({"model": {}}, "model: needs preset or architecture"),
        ({"model": {"preset": "package://a==1/b#sha256=zz"}}, "model.preset.sha256: 'zz': must be 64 hex"),
        ({"model": {"preset": "package://a/b"}}, "model.preset: 'package://a/b': must be package://NAME==VERSION"),
        ({"model": {"architecture": "bert"}}, "model.architecture needs preprocess.tokenizer.train"),
        ({"evaluate": {"thresholds": {"accuracy": {"mn": 1}}}}, "thresholds.accuracy.mn: unknown key; did you mean"),
        ({"evaluate": {"thresholds": {"accuracy": {}}}}, "evaluate.thresholds.accuracy: needs min or max"),
        ({"evaluate": {"thresholds": {"accuracy": {"min": 0.9, "max": 0.8}}}}, "accuracy: min 0.9 is above max 0.8"),
        ({"evaluate": {"thresholds": {"accuracy": {"min": 87}}}}, "the most it can be; in per cent? 0.87"),
        ({"evaluate": {"thresholds": {"log_loss": {"max": -1}}}}, "max -1 is below 0, the least it can be"),
        (
            {"evaluate": {"thresholds": {"acuracy": {"min": 0.5}}}},
            "thresholds.acuracy: text_classification has no such metric; did you mean accuracy?",
        ),
        (
            {"evaluate": {"thresholds": {"perplexity": {"max": 9}}}},
            "text_classification has no such metric; there are accuracy, precision_macro",
        ),
        ({"platform": {"trian": {}}}, "platform.trian: unknown key; did you mean platform.train?"),
        ({"platform": {"train": {"cpu": "many"}}}, "platform.train.cpu: 'many': must be a number of cores"),
        ({"platform": {"train": {"memory": "16 GB"}}}, "platform.train.memory: '16 GB': must be whole bytes"),
        ({"platform": {"train": {"retries": -1}}}, "platform.train.retries.count: -1: should be greater than"),
        ({"platform": {"train": {"spot": True}}}, "platform.train.spot: True: should be 'gke', 'eks' or 'aks'"),
        ({"platform": {"train": {"tolerations": [{"value": "x"}]}}}, "platform.train.tolerations.0: needs a key"),
        ({"platform": {"train": {"volumes": {"mnt": "a"}}}}, "platform.train: volumes: mnt: a: must be an absolute"),
        ({"platform": {"train": {"environment": {"A-B": "x"}}}}, "environment.A-B: is no name of an environment"),
    ],
)
def test_each_error_names_path_value_and_fix(changes, expected):
    assert expected in errors_of(**changes)


def test_keys_that_a_source_of_another_format_or_of_none_yet_reads_are_kept():
    for ingest in (
        {"train": "a", "test": {"path": "b.csv", "format": "csv"}, "format": "jsonl", "delimiter": ";"},
        {"train": "a", "test": {"path": "b.csv", "format": "parquet"}, "delimiter": ";", "encoding": "latin-1"},
        {"train": "a", "test": {"path": "python://stdlib", "files": "*.csv"}, "format": "csv", "splits": {"test": 0}},
    ):
        validate(BASE | {"ingest": ingest}, "t.yaml")


def test_an_id_is_no_column_that_conversations_are_read_from():
    chat = {"task": "causal_lm", "preprocess": {"chat": "chatml"}}
    for form, wrong, free in (
        (None, ["text", "messages", "conversations", "instruction", "output", "input", "system", "history"], ["key"]),
        ("messages", ["messages"], ["instruction", "system", "conversations"]),
        ("sharegpt", ["conversations", "system"], ["messages", "input"]),
        ("alpaca", ["instruction", "system"], ["messages", "conversations"]),
    ):
        for name in wrong:
            tree = chat | {"ingest": {"train": "a.jsonl", "id": name, "conversation": form}}
            assert f"ingest.id: {name!r} is " in errors_of(**tree)
        for name in free:
            validate(BASE | chat | {"ingest": {"train": "a.jsonl", "id": name, "conversation": form}}, "t.yaml")


def test_thresholds_on_classes_are_checked_where_the_config_names_them():
    thresholds = {"evaluate": {"thresholds": {"f1/god": {"min": 0.5}, "accuracy": {"min": 2}}}}
    labels = {"ingest": {"train": "a.csv", "labels": ["good", "bad"]}}
    message = errors_of(**thresholds, **labels)
    assert "thresholds.f1/god: text_classification has no such metric; did you mean f1/good?" in message
    assert "thresholds.accuracy: min 2 is above 1, the most it can be; in per cent? 0.02" in message
    assert "f1/god" not in errors_of(**thresholds), "the data may have such a class"
    chat = {"task": "causal_lm", "preprocess": {"chat": "chatml"}}
    bits = {"evaluate": {"thresholds": {"bits_per_byte": {"max": 2}}}}
    assert "bits_per_byte: there are none of conversations" in errors_of(**chat, **bits)


@pytest.mark.parametrize(
    "resources",
    [
        {"environment": {"HF_TOKEN": "hf_abcdef"}},
        {"environment": {"aws_secret_access_key": "hf_abcdef"}},
        {"environment": {"PROXY": "http://user:hf_abcdef@proxy:80"}},
        {"secrets": {"HF_TOKEN": "hf_abcdef"}},
    ],
)
def test_a_secret_is_refused_and_not_repeated(resources):
    message = errors_of(platform={"train": resources})
    assert "NAME/KEY" in message
    assert "hf_abcdef" not in message


def test_what_only_looks_like_a_secret_is_taken():
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": 4,
        "GOOGLE_APPLICATION_CREDENTIALS": "/etc/a.json",
    }
    config = validate(
        BASE | {"platform": {"train": {"environment": environment, "secrets": {"HF_TOKEN": "hub/token"}}}}, "t"
    )
    assert config.platform.train.environment["OMP_NUM_THREADS"] == "4"


def test_all_errors_come_at_once():
    message = errors_of(train={"epoch": 1, "seed": -1}, evalute={})
    assert "3 errors" in message
    assert all(
        path in message for path in ("train.epoch:", "train.seed: -1", "evalute: unknown key; did you mean evaluate?")
    )


def test_a_preset_object_is_judged_as_an_object_only():
    message = errors_of(model={"preset": {"package": "a==1", "sha256": "0" * 64, "membr": "x"}})
    assert message.count("\n") == 1
    assert "model.preset.membr: unknown key; did you mean model.preset.member?" in message


def test_set_reads_yaml_and_makes_sections():
    tree = {"name": "x"}
    override(tree, "train.learning_rate=1e-5")
    override(tree, "export.formats=[saved_model]")
    assert validate(BASE | tree, "t").train.learning_rate == 1e-5
    assert tree["export"] == {"formats": ["saved_model"]}


@pytest.mark.parametrize("bad", ["train.epochs", "=1", "name.x=1", "train=[1", ".=1"])
def test_bad_set_is_refused(bad):
    with pytest.raises(ConfigError, match="--set="):
        override({"name": "x"}, bad)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: a\ntask: text_classification\nname: b\n")
    with pytest.raises(ConfigError, match=r"c.yaml:3: .*'name' stands twice"):
        load(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_config_is_frozen_and_survives_a_round_trip():
    config = validate(BASE, "t")
    with pytest.raises(Exception, match="frozen"):
        config.name = "y"  # type: ignore[misc]
    again = Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config


def test_yaml_anchors_may_be_merged_and_their_keys_given_anew(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: x\ntask: causal_lm\ningest:\n  train: &all {path: a.txt, byte_range: [0, 5]}\n"
        "  test: {<<: *all, byte_range: [5, 9]}\nmodel: {preset: p}\n"
    )
    config = load(path)
    assert config.ingest.test.path == ("a.txt",)
    assert config.ingest.test.byte_range == (5, 9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "causal_lm", "model": {"architecture": "bert"}}, "architecture bert does not do causal_lm; gpt2 does"),
        ({"task": "causal_lm", "train": {"monitor": "accuracy"}}, "train.monitor: accuracy is no metric of causal_lm"),
        ({"train": {"monitor": "loss"}}, "train.monitor: loss is no metric of text_classification"),
        ({"ingest": {"train": {"path": "a", "byte_range": [5, 5]}}}, "byte_range must be [BEGIN, END]"),
        (
            {"task": "causal_lm", "model": {"architecture": "gpt2"},
             "preprocess": {"tokenizer": {"train": {"kind": "wordpiece", "vocabulary_size": 300}}}},
            "model.architecture gpt2 needs bpe",
        ),
    ],
)  # fmt: skip
def test_keys_of_language_models(changes, words):
    assert words in errors_of(**changes)


TASKS = {"text_classification": {}, "causal_lm": {}, "masked_lm": {}}


@pytest.mark.parametrize(
    ("task", "tree", "path"),
    [
        ("causal_lm", {"ingest": {"train": "a", "text_b": "b"}}, "ingest.text_b"),
        ("masked_lm", {"ingest": {"train": "a", "label": "label"}}, "ingest.label"),
        ("causal_lm", {"ingest": {"train": "a", "labels": ["a", "b"]}}, "ingest.labels"),
        ("causal_lm", {"ingest": {"train": {"path": "a", "label_rule": {"x": {"above": 1}}}}}, "ingest.train.label_rule"),
        ("text_classification", {"ingest": {"train": {"path": "a", "separator": "-"}}}, "ingest.train.separator"),
        ("text_classification", {"ingest": {"train": "a", "separator": ""}}, "ingest.separator"),
        ("text_classification", {"ingest": {"train": "a", "test": {"path": "a", "byte_range": [0, 9]}}}, "ingest.test.byte_range"),
        ("masked_lm", {"preprocess": {"chat": "chatml"}}, "preprocess.chat"),
        ("text_classification", {"train": {"z_loss": 1e-4}}, "train.z_loss"),
        ("text_classification", {"train": {"validation_tokens": 9}}, "train.validation_tokens"),
        ("causal_lm", {"train": {"mask_ratio": 0.2}}, "train.mask_ratio"),
        ("causal_lm", {"train": {"whole_word": True}}, "train.whole_word"),
        ("masked_lm", {"evaluate": {"stride": 4}}, "evaluate.stride"),
        ("text_classification", {"evaluate": {"prompts": ["a"]}}, "evaluate.prompts"),
        ("causal_lm", {"evaluate": {"mask_ratio": 0.2}}, "evaluate.mask_ratio"),
    ],
)  # fmt: skip
def test_a_key_of_another_task_is_refused(task, tree, path):
    message = errors_of(task=task, **tree)
    assert f"{path}: is a key of task " in message
    assert f"and this is {task}; leave it out" in message


def test_null_for_a_key_of_another_task_says_nothing_and_is_taken():
    validate(BASE | {"task": "causal_lm", "ingest": {"train": "a", "text_b": None}}, "t")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train": {"sequence_length": 9}}, "train.sequence_length: unknown key; it is a key of another section: preprocess.sequence_length"),
        ({"learning_rate": 1}, "learning_rate: unknown key; it is a key of another section: train.learning_rate"),
        ({"ingest": {"train": {"path": "a", "text": "x"}}}, "ingest.train.text: unknown key; it is a key of another section: ingest.text"),
        ({"preprocess": {"tokenizer": {"train": {"kind": "bpe", "vocabulary_size": 300, "lowercase": False}}}}, "lowercase is a key of kind wordpiece"),
    ],
)  # fmt: skip
def test_a_key_of_another_section_is_refused_with_its_place(changes, expected):
    assert expected in errors_of(**changes)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate: inf"),
        ({"train": {"weight_decay": float("nan")}}, "train.weight_decay: nan"),
        ({"train": {"learning_rate": "nan"}}, "train.learning_rate: 'nan'"),
        ({"train": {"epochs": float("inf")}}, "train.epochs: inf"),
        ({"train": {"steps": float("inf")}}, "train.steps: inf"),
        ({"evaluate": {"thresholds": {"accuracy": {"min": float("-inf")}}}}, "evaluate.thresholds.accuracy.min: -inf"),
        ({"ingest": {"train": {"path": "a", "label_rule": {"x": {"above": float("nan")}}}}}, "label_rule.x.above: nan"),
        ({"ingest": {"train": "a", "labels": ["a", float("inf")]}}, "ingest.labels.1: inf"),
        ({"platform": {"train": {"environment": {"A": float("nan")}}}}, "platform.train.environment.A: nan"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(changes, path):
    message = errors_of(**changes)
    assert path in message
    assert "finite number" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("[yes, no]", "ingest.labels.0: True: YAML reads it as a truth value, and text is needed: quote it as you wrote it"),
        ("[on, 'off']", "ingest.labels.0: True"),
        ("[1, 2]", "ingest.labels.0: 1: YAML reads it as a number, and text is needed: quote it as you wrote it"),
        ("[0x10, b]", "ingest.labels.0: 16: YAML reads it as a number, and text is needed: quote it as you wrote it: ['…', …]"),
    ],
)  # fmt: skip
def test_a_label_that_yaml_does_not_read_as_text_is_to_be_quoted(labels, expected):
    tree = {"name": "x"}
    override(tree, f"ingest={{train: a.csv, labels: {labels}}}")
    assert expected in errors_of(**tree)


def test_a_class_of_a_label_rule_that_yaml_does_not_read_as_text_is_to_be_quoted():
    tree = {"name": "x"}
    override(tree, "ingest={train: {path: a.csv, label_rule: {yes: {above: 1}, 'no': {below: 1}}}}")
    assert "ingest.train.label_rule: the key True: YAML reads it as a truth value" in errors_of(**tree)


def test_a_message_stays_short_whatever_a_value_is(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("name: &a [" + ", ".join(["x" * 90] * 99) + "]\n" + "".join(f"key{n}: *a\n" for n in range(99)))
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert "103 errors in the config" in lines[0]
    assert lines[-1] == "  and 53 more"
    assert len(lines) == 52
    assert max(map(len, lines)) < 300


def test_a_config_without_an_end_is_refused():
    with pytest.raises(ConfigError, match=r"^/dev/zero:? .*longer than 1,048,576 characters"):
        load("/dev/zero")


@pytest.mark.parametrize(
    "bad", [".".join("a" * 99) + "=1", "name" + ".a" * 31 + "=1", "train.epochs=" + "[" * 9_000, "x" * 9_000]
)
def test_a_long_set_is_refused_in_one_short_line(bad):
    with pytest.raises(ConfigError) as caught:
        override({"name": "x" * 9_000}, bad)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "most"),
    [
        ("model", "layers", 1e6, 1000), ("model", "heads", 1e6, 1024), ("model", "hidden_dim", 1e6, 65536),
        ("model", "intermediate_dim", 1e9, 262144), ("preprocess", "sequence_length", 1e9, 1048576),
        ("train", "batch_size", 10**9, "65,536"), ("train", "accumulate", 1e9, 65536), ("train", "epochs", 1e300, 1000000),
        ("train", "keep_checkpoints", 1e15, 1000000000000), ("evaluate", "stride", 1e15, 1000000000000),
    ],
)  # fmt: skip
def test_a_size_that_is_a_slip_is_refused_with_its_bound(section, key, value, most):
    others = {"model": {"architecture": "gpt2"}} if section == "model" else {}
    message = errors_of(task="causal_lm", **{section: others.get(section, {}) | {key: value}})
    assert f"  {section}.{key}: " in message
    assert f" {most}" in message


def test_a_number_that_is_no_size_at_all_is_refused_in_words():
    message = errors_of(train={"steps": 1e300}, platform={"vertex": {"region": "Berlin"}})
    assert "train.steps: 1e+300: is too large" in message
    assert "platform.vertex.region: 'Berlin': string should match pattern" in message


@pytest.mark.parametrize(
    "path",
    [
        "model.preset",
        "export.push_to",
        "ingest.train",
        "ingest.id",
        "platform.image",
        "platform.train.state",
        "platform.kubeflow.ca_file",
    ],
)
@pytest.mark.parametrize("blank", ["", "  "])
def test_what_a_variable_that_is_not_set_leaves_empty_is_refused(path, blank):
    section, *others, last = path.split(".")
    tree = {last: blank}
    for name in reversed(others):
        tree = {name: tree}
    message = errors_of(**{section: BASE.get(section, {}) | tree})
    assert f"{path}{'.0' if last == 'train' else ''}: {blank!r}: is empty; is a variable not set?" in message


def test_a_pipe_is_a_config_if_somebody_writes_into_it(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="pipe: is a pipe, and nothing is written into it"):
        load(path)
    end, begin = os.pipe()
    writer = threading.Timer(0.1, lambda: (os.write(begin, b"task: no_task"), os.close(begin)))
    writer.start()
    with pytest.raises(ConfigError, match="no_task"):
        load(f"/dev/fd/{end}")
    writer.join()
    os.close(end)
