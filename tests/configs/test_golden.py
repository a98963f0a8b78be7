"""Every recipe resolves to what is written down, so that a changed default or key is seen.

Update: .venv/bin/python -m pytest tests/configs/test_golden.py --update_golden
"""

import json
from pathlib import Path

import pytest

from lmworks.configs.load import load

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden")
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_resolves_to_what_is_written_down(recipe, request):
    resolved = json.dumps(load(ROOT / f"configs/{recipe}.yaml").model_dump(mode="json"), indent=1) + "\n"
    golden = GOLDEN / f"{recipe}.json"
    if request.config.getoption("--update_golden"):
        golden.write_text(resolved)
    assert resolved == golden.read_text(), "run this file with --update_golden if that is meant"


def test_no_golden_config_without_its_recipe():
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == RECIPES
