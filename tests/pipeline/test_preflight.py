"""What is knowable before a run is said before it: no stage begins, and all errors come at once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lmworks.configs.errors import ConfigError, UserError
from lmworks.configs.load import validate
from lmworks.models.preset_kinds import keras_hub_presets
from lmworks.pipeline import preflight
from lmworks.pipeline.main import main
from lmworks.pipeline.preset import local_preset
from tests.conftest import REPOSITORY
from tests.models.small_folders import bert_folder, gpt2_folder

ALL = ("ingest", "preprocess", "train", "evaluate", "export", "push")
RECIPE = {
    "name": "x",
    "task": "text_classification",
    "ingest": {"train": "train.csv"},
    "preprocess": {"sequence_length": 16},
    "model": {"preset": "./bert"},
}
ROWS = "".join(
    f"{text} {number},{label}\n" for number in range(20) for text, label in (("good", "pos"), ("bad", "neg"))
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bert_folder(tmp_path / "bert")
    gpt2_folder(tmp_path / "gpt2")
    Path("train.csv").write_text("text,label\n" + ROWS)


def config(**changes):
    tree = json.loads(json.dumps(RECIPE))
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def command(capsys, tree, *flags):
    Path("recipe.yaml").write_text(yaml.safe_dump(tree))
    code = main(["run", "--config=recipe.yaml", *flags])
    return code, capsys.readouterr().err


def test_all_is_said_at_once_and_no_stage_begins(place, capsys):
    wrong = config(
        model__preset="./gpt2",
        train__callbacks=["watching:Watch", "json:Decoder"],
        export__push_to="train.csv",
        export__formats=["saved_model"],
    )
    code, said = command(capsys, wrong)
    assert code == 2
    lines = said.splitlines()
    assert "4 errors, seen before the first stage" in lines[0]
    assert "model_type 'gpt2'; text_classification reads bert, distilbert" in lines[1]
    assert "train.callbacks: watching:Watch: cannot be imported" in lines[2]
    assert "train.callbacks: json:Decoder: is of Python's standard library" in lines[3]
    assert lines[4].endswith("train.csv is no folder")
    assert len(lines) == 5
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["run", "preview"])
def test_a_hostile_preset_ends_a_command_in_one_line(name, place, capsys):
    tensor = "encoder.layer.0.attention.self.query.weight"
    bert_folder(Path("bert"), **{tensor: np.full((8, 8), np.nan, np.float32)})
    Path("recipe.yaml").write_text(yaml.safe_dump(config()))
    assert main([name, "--config=recipe.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"model.preset: bert/model.safetensors: tensor {tensor} holds NaN" in said
    assert len(said.splitlines()) == 2
    assert not Path("runs").exists()


def test_a_compilation_looks_at_names(place, capsys):
    Path("recipe.yaml").write_text(yaml.safe_dump(config(model__preset="gpt2_base_en")))
    assert main(["compile", "--config=recipe.yaml", "--target=kubeflow", "--output=x.yaml"]) == 2
    assert "gpt2_base_en: is of the family gpt2; text_classification takes Bert" in capsys.readouterr().err
    assert not Path("x.yaml").exists()


def test_only_what_the_stages_need_is_looked_at(place):
    wrong = validate(config(model__preset="./nowhere", train__callbacks=["watching:Watch"]), "x")
    preflight.check(wrong, ["ingest"])
    with pytest.raises(ConfigError, match="1 error, seen") as before_train:
        preflight.check(wrong, ["ingest", "preprocess"])
    assert "callbacks" not in str(before_train.value)
    with pytest.raises(ConfigError, match="2 errors, seen"):
        preflight.check(wrong, ALL)


def test_what_another_machine_has_is_not_looked_at(place):
    """The image of a cluster has folders and modules of its own; KerasHub's names are the same everywhere."""
    elsewhere = config(model__preset="./nowhere", train__callbacks=["watching:Watch"], export__push_to="/mnt/models")
    preflight.check(validate(elsewhere, "x"), ALL, here=False)
    with pytest.raises(ConfigError, match="did you mean bert_tiny_en_uncased"):
        preflight.check(validate(config(model__preset="bert_tiny_en_uncasd"), "x"), ALL, here=False)
    with pytest.raises(ConfigError, match="512 positions"):
        preflight.check(
            validate(config(model__preset="bert_tiny_en_uncased", preprocess__sequence_length=513), "x"),
            ALL,
            here=False,
        )


@pytest.mark.parametrize(
    ("model", "length", "task", "formats", "words"),
    [
        ("./bert", 17, "text_classification", [], "preprocess.sequence_length: 17 is above the model's 16 positions"),
        ("./gpt2", 17, "causal_lm", [], "preprocess.sequence_length: 17 is above the model's 16 positions"),
        ("gpt2_base_en", 1025, "causal_lm", [], "preprocess.sequence_length: 1025 is above the model's 1024 positions"),
        ("qwen3_0.6b_en", 16, "causal_lm", ["huggingface"], "export.formats: huggingface is written for GPT2, Llama3"),
        ("roberta_base_en", 16, "masked_lm", [], "is of the family roberta; masked_lm takes Bert, DistilBert"),
    ],
)
def test_presets(place, model, length, task, formats, words):
    tree = config(model__preset=model, preprocess__sequence_length=length, task=task)
    tree["export"] = {"formats": ["saved_model", *formats]}
    with pytest.raises(ConfigError) as refusal:
        preflight.check(validate(tree, "x"), ALL)
    assert words in str(refusal.value)


def test_a_repository_of_the_hub_is_asked_for_its_config(place, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository, revision = tmp_path / "cache/models--someone--something", "0123456789" * 4
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(revision)
    gpt2_folder(repository / "snapshots" / revision)
    preflight.check(validate(config(model__preset="hf://someone/something", task="causal_lm"), "x"), ALL)
    with pytest.raises(
        ConfigError, match=r"hf://someone/something/config\.json: model_type 'gpt2'; text_classification"
    ):
        preflight.check(validate(config(model__preset="hf://someone/something"), "x"), ALL)
    with pytest.raises(ConfigError, match=r"model\.preset: hf://someone/nothing: cannot be loaded"):
        preflight.check(validate(config(model__preset="hf://someone/nothing"), "x"), ALL)


def test_the_folder_of_a_run_names_its_model(place):
    bert_folder(Path("runs/old/train/model"))
    for folder, within in (("runs/old", "train/model"), ("runs/old/train", "model")):
        with pytest.raises(UserError, match=rf"has no config\.json; .*; did you mean {folder}/{within}\?"):
            local_preset(folder)


def test_columns_and_classes_are_compared_when_ingest_is_done(place, capsys):
    """At once also where ingest was done before; and all that is wrong is said."""
    wrong = config(
        evaluate__slices=["plase", "label"], evaluate__thresholds={"f1/poss": {"min": 0.5}, "accuracy": {"min": 0}}
    )
    for _ in range(2):
        code, said = command(capsys, wrong, "--until=ingest", "--in_process")
        assert code == 1
        assert "evaluate.slices: plase: the examples have no such column (id, text, label)" in said
        assert "evaluate.thresholds.f1/poss: text_classification has no such metric; did you mean f1/pos?" in said
        assert "Traceback" not in said
    right = config(evaluate__slices=["label"], evaluate__thresholds={"f1/pos": {"min": 0.5}})
    assert command(capsys, right, "--until=ingest", "--in_process")[0] == 0


def test_it_is_cheap(place):
    """No framework is imported for it."""
    Path("recipe.yaml").write_text(yaml.safe_dump(config()))
    code = (
        "import sys; from lmworks.configs.load import load; from lmworks.pipeline import preflight; "
        "preflight.check(load('recipe.yaml'), ['preprocess', 'train', 'export', 'push']); "
        "print(sorted({'tensorflow', 'keras', 'keras_hub', 'jax', 'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("recipe", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_pass(recipe, monkeypatch):
    """All that are shipped; packages are looked at where they have been fetched."""
    from lmworks.configs.load import load

    monkeypatch.chdir(REPOSITORY)
    config = load(recipe)
    by_name = config.model.preset in keras_hub_presets()  # Kaggle may be out of reach, which is said
    preflight.check(config, ALL, here=not by_name)
