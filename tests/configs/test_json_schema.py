"""What an editor sees: the schema, held against every recipe as several readers of YAML read it."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from lmworks.configs.json_schema import json_schema
from lmworks.configs.yaml_reader import parse_yaml

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("read", [yaml.safe_load, lambda text: parse_yaml(text, "t")], ids=["yaml_1_1", "ours"])
def test_the_schema_accepts_every_recipe(recipe, read):
    jsonschema.Draft202012Validator(json_schema()).validate(read(recipe.read_text()))


def test_the_schema_refuses_what_a_config_refuses():
    validator = jsonschema.Draft202012Validator(json_schema())
    tree = yaml.safe_load(RECIPES[0].read_text())
    assert not validator.is_valid(tree | {"trian": {}})
    assert not validator.is_valid(tree | {"train": {"batch_size": 0.5}})


def test_it_is_a_schema_with_a_description_for_every_key():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["$id"]
    sections = {"config": schema, **schema["$defs"]}
    silent = [f"{name}.{key}" for name, section in sections.items()
              for key, value in section.get("properties", {}).items() if not value.get("description")]  # fmt: skip
    assert not silent
